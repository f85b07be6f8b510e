package config

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ticketgate/internal/unit"
	"ticketgate/limiter"
)

// decode puts n into v, which may hold a default already, and reports what does not fit. tag is that of v's field.
func (l *loader) decode(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	if _, ok := l.where[path]; !ok {
		l.where[path] = n.pos
	}
	t := v.Type()
	switch {
	case n.kind == broken:
		l.failed[path] = true
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		l.decode(n, path, v.Elem(), tag)
	case reflect.PointerTo(t).Implements(eitherType):
		l.decodeEither(n, path, v, tag)
	case isScalar(t):
		l.decodeScalar(n, path, v, tag)
	case n.kind == empty: // "limits:" with all behind it commented out
	case t.Kind() == reflect.Slice:
		l.decodeList(n, path, v, tag)
	case n.kind != mapping:
		l.problem(n.pos, path, "%s: want a mapping, got %s", path, n.describe())
	case t.Kind() == reflect.Map:
		l.decodeMap(n, path, v, tag.Get("keys"))
	default:
		l.decodeStruct(n, path, v)
	}
}

func (l *loader) decodeStruct(n *node, path string, v reflect.Value) {
	names, later := keysOf(v.Type())
	for _, e := range l.distinct(n, path) {
		at := join(path, e.key)
		field, ok := names[e.key]
		switch {
		case ok:
			l.decode(e.value, at, v.Field(field.Index[0]), field.Tag)
		case slices.Contains(later, e.key):
			l.problem(e.pos, at, "key %q %s is known, but not available in this version", e.key, under(path))
		default:
			l.unknown(e, path, append(later, mapKeys(names)...))
		}
	}
}

func (l *loader) decodeMap(n *node, path string, v reflect.Value, rule string) {
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.entries)))
	for _, e := range l.distinct(n, path) {
		if rule == "limit" && !isLimit(e) {
			l.unknown(e, path, limitNames)
			continue
		}
		if check := keyRules[rule]; check != nil && !check.MatchString(e.key) {
			l.problem(e.pos, path, "key %q %s: %s", shorten(e.key), under(path), keyWants[rule])
			continue
		}
		value := reflect.New(v.Type().Elem()).Elem()
		if value.Kind() == reflect.Struct && !isScalar(value.Type()) {
			setDefaults(value)
		}
		l.decode(e.value, join(path, e.key), value, "")
		v.SetMapIndex(reflect.ValueOf(e.key), value)
	}
}

// limitNames are the limits that say by their name what they count.
var limitNames = []string{"bytes-in", "bytes-out", "connections", "messages-in", "messages-out", "tickets"}

// isLimit reports whether e can be a limit: its name is known, or it says what it counts.
func isLimit(e entry) bool {
	return slices.Contains(limitNames, e.key) || e.value.find("counts") != nil
}

func (l *loader) decodeList(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	if n.kind != list {
		l.problem(n.pos, path, "%s: want a list, got %s", path, n.describe())
		return
	}
	l.cfg.origins[path] = n.String()
	items := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		l.decode(item, fmt.Sprintf("%s[%d]", path, i), items.Index(i), tag)
	}
	v.Set(items)
}

func (l *loader) decodeScalar(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	l.where[path] = n.pos
	if n.written != "" {
		l.masked[path] = true
	}
	if msg := misfit(n, v, tag); msg != "" {
		l.problem(n.pos, path, "%s: %s", path, msg)
		return
	}
	l.cfg.origins[path] = n.String()
}

// eitherType is what types implement that may be a word or a list, such as limiter.Per.
var eitherType = reflect.TypeFor[interface {
	UnmarshalYAML(decode func(any) error) error
}]()

func (l *loader) decodeEither(n *node, path string, v reflect.Value, tag reflect.StructTag) {
	for _, part := range append(n.items, n) {
		if part.written != "" {
			l.masked[path] = true
		}
	}
	u := v.Addr().Interface().(interface {
		UnmarshalYAML(decode func(any) error) error
	})
	if err := u.UnmarshalYAML(func(to any) error { return plain(n, reflect.ValueOf(to).Elem(), tag) }); err != nil {
		l.problem(n.pos, path, "%s: %v", path, err)
		return
	}
	l.cfg.origins[path] = n.String()
}

// plain sets v, a scalar or a list of scalars, each of which fits tag.
func plain(n *node, v reflect.Value, tag reflect.StructTag) error {
	if v.Kind() != reflect.Slice {
		if msg := misfit(n, v, tag); msg != "" {
			return errors.New(msg)
		}
		return nil
	}
	if n.kind != list {
		return fmt.Errorf("want a list, got %s", n.describe())
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		if err := plain(item, v.Index(i), tag); err != nil {
			return err
		}
	}
	return nil
}

// misfit sets v to the scalar n. The answer is what is wrong with n, or "".
func misfit(n *node, v reflect.Value, tag reflect.StructTag) string {
	t := v.Type()
	if n.kind != scalar {
		return fmt.Sprintf("want %s, got %s", want(t), n.describe())
	}
	switch {
	case t.Kind() == reflect.String && n.typed != "":
		return fmt.Sprintf("want text, got %s; write \"%s\"", n.typed, shorten(n.text))
	case n.quoted && t.PkgPath() == "" && t.Kind() != reflect.String: // an int or bool of Go's own
		return fmt.Sprintf("want %s, got text", want(t))
	}
	shown := show(n, t)
	if err := setScalar(v, n.text); err != nil {
		if examples[t] != "" && n.written == "" {
			return err.Error()
		}
		return fmt.Sprintf("%s is not %s", shown, want(t))
	}
	if form := tag.Get("form"); form != "" {
		if err := forms[form](n.text); err != nil {
			return fmt.Sprintf("%s %v", shown, err)
		}
	}
	if low, high, ok := strings.Cut(tag.Get("range"), ","); ok && outside(v, low, high) {
		return fmt.Sprintf("%s is out of range: %s to %s", shown, low, high)
	}
	return unlisted(n.text, shown, tag)
}

// unlisted says what is wrong with a value that must be one of a few.
func unlisted(text, shown string, tag reflect.StructTag) string {
	known, later := strings.Fields(tag.Get("oneof")), strings.Fields(tag.Get("later"))
	switch {
	case len(known) == 0 || slices.Contains(known, text):
		return ""
	case slices.Contains(later, text):
		return fmt.Sprintf("%s is known, but not available in this version; there is %s", shown, strings.Join(known, ", "))
	}
	hint := suggest(text, known)
	if hint == "" {
		hint = "; want " + strings.Join(known, ", ")
	}
	return fmt.Sprintf("%s is not known%s", shown, hint)
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// wants says what a scalar of a type looks like whose own errors are for programmers.
var wants = map[reflect.Type]string{
	durationType:                    "a duration such as 30s or 2m",
	reflect.TypeFor[time.Time]():    "a time such as 2027-01-31T00:00:00Z",
	reflect.TypeFor[netip.Prefix](): "an address range such as 10.0.0.0/8",
}

// examples are of types whose own errors say it better, but show the value.
var examples = map[reflect.Type]string{
	reflect.TypeFor[unit.Size]():    "a size such as 64KiB",
	reflect.TypeFor[unit.Share]():   "a share such as 25% or a size such as 64MiB",
	reflect.TypeFor[unit.Percent](): "a share such as 85%",
	reflect.TypeFor[unit.Timeout](): "a duration such as 90s, or off",
	reflect.TypeFor[limiter.Rate](): "a rate such as 3/1minute",
	reflect.TypeFor[limiter.Size](): "a number or a size such as 64KiB",
	reflect.TypeFor[Pattern]():      "a regular expression",
	reflect.TypeFor[Secret]():       "text",
	reflect.TypeFor[Replicas]():     "auto or a number from 0 to 8",
}

func want(t reflect.Type) string {
	if s := wants[t] + examples[t]; s != "" {
		return s
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	}
	return "a value of another form"
}

// isScalar reports whether a value of t is written as one word, not as a list or mapping.
func isScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textType) {
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Pointer:
		return false
	}
	return true
}

// setScalar sets v, for whose type isScalar holds, to what text says. On error v is as before.
func setScalar(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	if v.Type() == durationType {
		d, err := time.ParseDuration(text)
		if err == nil {
			v.SetInt(int64(d))
		}
		return err
	}
	switch {
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool && (text == "true" || text == "false"):
		v.SetBool(text == "true")
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err == nil {
			v.SetInt(n)
		}
		return err
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err == nil {
			v.SetUint(n)
		}
		return err
	default:
		return fmt.Errorf("not a %v", v.Type())
	}
	return nil
}

// outside reports whether v is below low or above high. A Timeout that is off is not.
func outside(v reflect.Value, low, high string) bool {
	if v.Type() == reflect.TypeFor[unit.Timeout]() && v.IsZero() {
		return false
	}
	return whole(v) < bound(v.Type(), low) || whole(v) > bound(v.Type(), high)
}

// whole is the number in v.
func whole(v reflect.Value) int64 {
	if v.CanUint() {
		return int64(v.Uint())
	}
	return v.Int()
}

// bound reads one end of a range tag.
func bound(t reflect.Type, text string) int64 {
	v := reflect.New(t).Elem()
	if err := setScalar(v, text); err != nil {
		panic(fmt.Sprintf("config: bound %q: %v", text, err))
	}
	return whole(v)
}

// show is how a message names n's value: never a secret, nor what ${...} stands for.
func show(n *node, t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Secret]():
		return "the value"
	case n.written != "":
		return "the value of " + strconv.Quote(shorten(n.written))
	}
	return strconv.Quote(shorten(n.text))
}

// shorten keeps a message on one line of a terminal.
func shorten(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

func (l *loader) unknown(e entry, path string, names []string) {
	l.problem(e.pos, join(path, e.key), "unknown key %q %s%s", shorten(e.key), under(path), suggest(e.key, names))
}

// distinct returns the entries of n without those whose key stands there already, which it reports.
func (l *loader) distinct(n *node, path string) []entry {
	entries := make([]entry, 0, len(n.entries))
	lines := make(map[string]int, len(n.entries))
	for _, e := range n.entries {
		if line, ok := lines[e.key]; ok {
			l.problem(e.pos, join(path, e.key), "duplicate key %q %s; the first is in line %d", shorten(e.key), under(path), line)
			continue
		}
		lines[e.key] = e.line
		entries = append(entries, e)
	}
	return entries
}

func under(path string) string {
	if path == "" {
		return "at the top level"
	}
	return "under " + path
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// keysOf returns the keys of a struct type: those there are, and those that are known for later.
func keysOf(t reflect.Type) (names map[string]reflect.StructField, later []string) {
	names = make(map[string]reflect.StructField)
	for i := range t.NumField() {
		field := t.Field(i)
		if field.Name == "_" {
			later = append(later, strings.Fields(field.Tag.Get("later"))...)
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if field.IsExported() && name != "" && name != "-" {
			names[name] = field
		}
	}
	return names, later
}

func mapKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
