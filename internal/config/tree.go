package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The parser's time and stack grow with the square of the depth ("[[[[..." of 100 kB took it 80 s), so depth is bounded
// before it sees anything. What this format needs is 6.
const depthMax = 32

// A node is a value of the file, freed of what YAML can do and this format does not: anchors, aliases, tags, merge keys,
// several documents.
type node struct {
	pos     // of a scalar or list item itself; of the key for a mapping or list that has one
	kind    kind
	text    string // scalar
	typed   string // scalar that YAML reads as other than text: "a number", "true or false"
	quoted  bool   // scalar that YAML reads as text though it may look like a number
	written string // scalar with ${...}: as it stands in the file
	items   []*node
	entries []entry
}

type entry struct {
	pos
	key   string
	value *node
}

type kind int

const (
	empty kind = iota // "key:" with nothing behind it
	scalar
	list
	mapping
	broken // reported already
)

func (n *node) describe() string {
	switch n.kind {
	case empty:
		return "nothing"
	case list:
		return "a list"
	case mapping:
		return "a mapping"
	case scalar:
		if n.typed != "" {
			return n.typed
		}
	}
	return "text"
}

// find returns the entry with the key, the first of several.
func (n *node) find(key string) *entry {
	for i := range n.entries {
		if n.entries[i].key == key {
			return &n.entries[i]
		}
	}
	return nil
}

// parse reads text into a tree. The problems have at as file; positions only if at.line is not 0.
func (l *loader) parse(at pos, text []byte) *node {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors begin a file with it (YAML 1.2, 5.2)
	if good := utf8Prefix(text); len(good) < len(text) {
		l.problem(at.after(good), "", "not text in UTF-8")
		return &node{pos: at, kind: broken}
	}
	tokens := lexer.Tokenize(string(text))
	if tk := tooDeep(tokens); tk != nil {
		l.problem(at.of(tk), "", "nested more than %d deep", depthMax)
		return &node{pos: at, kind: broken}
	}
	file, err := parseTokens(tokens)
	if err != nil {
		l.syntax(at, err)
		return &node{pos: at, kind: broken}
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return &node{pos: at}
	case 1:
		return l.convert(at, bodies[0])
	}
	l.problem(at.of(firstToken(bodies[1])), "", "a second YAML document: a configuration is one")
	return &node{pos: at, kind: broken}
}

// parseTokens is the library's parser behind a net: some broken texts make it panic instead of answering an error.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, errors.New("this is not YAML")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func (l *loader) syntax(at pos, err error) {
	var where yaml.Error
	if errors.As(err, &where) {
		l.problem(at.of(where.GetToken()), "", "not valid YAML: %s", where.GetMessage())
		return
	}
	l.problem(at, "", "not valid YAML: %v", err)
}

// tooDeep returns the token that exceeds depthMax, counting open brackets, and dashes and question marks of one line.
func tooDeep(tokens token.Tokens) *token.Token {
	flow, block, line := 0, 0, 0
	for _, tk := range tokens {
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			if tk.Position.Line != line {
				block, line = 0, tk.Position.Line
			}
			block++
		}
		if flow > depthMax || block > depthMax || tk.Position.IndentLevel > depthMax {
			return tk
		}
	}
	return nil
}

// of is the place of tk in the file that p names; p itself where the text has no lines of its own.
func (p pos) of(tk *token.Token) pos {
	if p.line == 0 || tk == nil || tk.Position == nil {
		return p
	}
	return pos{p.file, max(1, tk.Position.Line), max(1, tk.Position.Column)}
}

// after is the place behind text, which begins at p.
func (p pos) after(text []byte) pos {
	if p.line == 0 {
		return p
	}
	lastLine := text[bytes.LastIndexByte(text, '\n')+1:]
	return pos{p.file, 1 + bytes.Count(text, []byte("\n")), 1 + utf8.RuneCount(lastLine)}
}

// utf8Prefix is text up to the first byte that is not UTF-8.
func utf8Prefix(text []byte) []byte {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return text[:i]
		}
		i += n
	}
	return text
}

// firstToken is where n begins. A mapping without braces answers GetToken with its first colon.
func firstToken(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}

func (l *loader) convert(at pos, n ast.Node) *node {
	at = at.of(firstToken(n))
	switch n := n.(type) {
	case *ast.MappingNode:
		return l.convertMapping(at, n.Values)
	case *ast.MappingValueNode:
		return l.convertMapping(at, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		out := &node{pos: at, kind: list}
		for _, v := range n.Values {
			out.items = append(out.items, l.convert(at, v))
		}
		return out
	case *ast.NullNode:
		return &node{pos: at}
	case *ast.LiteralNode:
		return &node{pos: at, kind: scalar, text: n.Value.Value}
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return &node{pos: at, kind: scalar, text: n.Value, quoted: quoted}
	case *ast.BoolNode:
		return &node{pos: at, kind: scalar, text: n.Token.Value, typed: "true or false"}
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return &node{pos: at, kind: scalar, text: n.GetToken().Value, typed: "a number"}
	}
	l.problem(at, "", "%s is not part of this format; write the value itself", nameOf(n))
	return &node{pos: at, kind: broken}
}

// nameOf is what people call a thing of YAML's that is refused.
func nameOf(n ast.Node) string {
	switch n.Type() {
	case ast.AnchorType:
		return "an anchor (&)"
	case ast.AliasType:
		return "an alias (*)"
	case ast.TagType:
		return "a tag (!)"
	case ast.MergeKeyType:
		return "a merge key (<<)"
	case ast.MappingKeyType:
		return "a key after a question mark"
	}
	return "this kind of value (" + n.Type().YAMLName() + ")"
}

func (l *loader) convertMapping(at pos, values []*ast.MappingValueNode) *node {
	out := &node{pos: at, kind: mapping}
	for _, v := range values {
		here := at.of(v.Key.GetToken())
		var key string
		switch k := v.Key.(type) {
		case *ast.StringNode:
			key = k.Value
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			key = k.GetToken().Value
		default:
			l.problem(here, "", "%s is not part of this format; a key is plain text", nameOf(k))
			continue
		}
		value := l.convert(here, v.Value)
		if value.kind != scalar {
			value.pos = here
		}
		out.entries = append(out.entries, entry{pos: here, key: key, value: value})
	}
	return out
}

// resolve replaces ${env:NAME} and ${file:PATH} in every scalar under n. There is no other templating, and what is put in
// is not looked at again.
func (l *loader) resolve(n *node) {
	if n.kind == scalar {
		l.resolveScalar(n)
	}
	for _, item := range n.items {
		l.resolve(item)
	}
	for _, e := range n.entries {
		l.resolve(e.value)
	}
}

func (l *loader) resolveScalar(n *node) {
	before, rest, found := strings.Cut(n.text, "${")
	if !found {
		return
	}
	n.written = n.text
	var b strings.Builder
	for ; found; before, rest, found = strings.Cut(rest, "${") {
		b.WriteString(before)
		inside, after, closed := strings.Cut(rest, "}")
		value, err := "", errors.New(`"${" without "}"`)
		if closed {
			value, err = l.lookUp(inside)
		}
		if err != nil {
			l.problem(n.pos, "", "%v", err)
			n.kind = broken
			return
		}
		b.WriteString(value)
		rest = after
	}
	b.WriteString(before)
	n.text, n.quoted = b.String(), false
}

// lookUp is the value for ${inside}. Its errors do not show an inside of another form: it may be a part of a password.
func (l *loader) lookUp(inside string) (string, error) {
	what, name, _ := strings.Cut(inside, ":")
	switch {
	case what == "env" && name != "":
		value, ok := l.env[name]
		if !ok {
			return "", fmt.Errorf("${env:%s}: the environment has no such variable", name)
		}
		return value, nil
	case what == "file" && name != "":
		text, err := l.read(l.path(name), valueMax)
		if err != nil {
			return "", fmt.Errorf("${file:%s}: %w", name, err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
	}
	return "", errors.New(`"${" is for ${env:NAME} and ${file:PATH} alone`)
}
