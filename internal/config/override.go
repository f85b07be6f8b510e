package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// envPrefix begins the variables that set values; "__" stands between levels: TICKETGATE_STORE__URL.
const envPrefix = "TICKETGATE_"

// ofConnect are the variables with the prefix that set nothing: "ticketgate connect" reads them, and "dev --shell" sets them.
var ofConnect = []string{"TICKETGATE_KEY", "TICKETGATE_URL"}

// override puts the values of the environment, then those of flags, into the tree. It remembers env for ${env:NAME}.
func (l *loader) override(root *node, env []string, flags map[string]string) {
	l.env = make(map[string]string, len(env))
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		l.env[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(l.env)) {
		if rest, ok := strings.CutPrefix(name, envPrefix); ok && !slices.Contains(ofConnect, name) {
			l.set(root, strings.Split(rest, "__"), l.register("environment variable "+name), l.env[name])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(flags)) {
		l.set(root, strings.Split(path, "."), l.register("flag "+path), flags[path])
	}
}

// set puts text at the place that levels name, with case and the difference between - and _ left aside: a variable's name
// cannot have them. It changes what is there and adds keys that the format knows, but no entries of one's own (streams,
// plans, ...), for a misspelt one would be a new one.
func (l *loader) set(root *node, levels []string, from pos, text string) {
	n, t, path := root, reflect.TypeFor[Config](), ""
	for i, level := range levels {
		key, below, ok := l.descend(n, t, path, level, from)
		if !ok {
			return
		}
		path, t = join(path, key), below
		if i < len(levels)-1 && t != nil && (isScalar(t) || t.Kind() == reflect.Slice) {
			l.problem(from, path, "%s is one value: there is no %q in it", path, strings.ToLower(levels[i+1]))
			return
		}
		e := n.find(key)
		if e == nil {
			n.kind = mapping
			n.entries = append(n.entries, entry{pos: from, key: key, value: &node{pos: from}})
			e = &n.entries[len(n.entries)-1]
		}
		if i == len(levels)-1 || t == nil {
			e.value = l.overrideValue(t, from, text)
			return
		}
		n = e.value
	}
}

// descend finds the key that level means in n, a value of type t at path, and the type of what is under it: nil for a key
// that this version has not.
func (l *loader) descend(n *node, t reflect.Type, path, level string, from pos) (key string, below reflect.Type, ok bool) {
	var known []string
	switch {
	case n.kind != mapping && n.kind != empty: // reported where it stands
		return "", nil, false
	case t.Kind() == reflect.Map:
		for _, e := range n.entries {
			known = append(known, e.key)
		}
	default:
		names, later := keysOf(t)
		known = append(later, mapKeys(names)...)
	}
	for _, name := range known {
		if fold(name) == fold(level) {
			if key != "" && key != name {
				l.problem(from, path, "%q %s may be %q or %q", level, under(path), key, name)
				return "", nil, false
			}
			key = name
		}
	}
	if key == "" {
		l.problem(from, join(path, strings.ToLower(level)), "unknown key %q %s%s", strings.ToLower(level), under(path),
			suggest(level, known))
		return "", nil, false
	}
	return key, typeOf(t, key), true
}

// typeOf is the type of what stands under key in a value of type t. A key for later has none: its text is never decoded.
func typeOf(t reflect.Type, key string) reflect.Type {
	if t.Kind() == reflect.Map {
		t = t.Elem()
	} else {
		names, _ := keysOf(t)
		t = names[key].Type
	}
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// overrideValue is text as a value of type t: taken as it is for a scalar, as YAML for a list or mapping. Where one value or a
// list may stand, a list is what has brackets around it: "[::1]:0" is one address.
func (l *loader) overrideValue(t reflect.Type, from pos, text string) *node {
	if t == nil || isScalar(t) || reflect.PointerTo(t).Implements(eitherType) && !(strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]")) {
		return &node{pos: from, kind: scalar, text: text}
	}
	return l.parse(from, []byte(text))
}
