package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"ticketgate/handshake/auth"
)

// Bounds on what is read. A key's entry has about 250 bytes, so a keys file holds some 60,000 of them.
const (
	fileMax  = 1 << 20
	keysMax  = 16 << 20
	valueMax = 64 << 10 // ${file:PATH}
)

// Load reads the file at path, sets what TICKETGATE_* of env ("NAME=value", as os.Environ gives them) and flags (by path,
// "store.url") say over it, reads the files it names, and checks it all. The error is a *Problems. Two calls may run at once.
func Load(path string, env []string, flags map[string]string) (*Config, error) {
	text, err := readFile(path, fileMax)
	if err != nil {
		return nil, &Problems{[]Problem{{File: path, Msg: err.Error()}}}
	}
	return load(source{path, text, readFile}, env, flags)
}

// A source is a configuration's text and how the files it names are read.
type source struct {
	name string
	text []byte
	read func(path string, limit int64) ([]byte, error)
}

// A loader is one call of Load.
type loader struct {
	source
	env      map[string]string
	cfg      *Config
	problems []Problem
	rank     map[string]int // of files, variables and flags, in the order of their problems

	where  map[string]pos  // by path, of all that the tree holds
	masked map[string]bool // paths of values with ${...} in them, which no message shows
	failed map[string]bool // paths with a problem: what follows from them is not reported
}

func load(src source, env []string, flags map[string]string) (*Config, error) {
	l := &loader{
		source: src, cfg: Default(), rank: make(map[string]int),
		where: make(map[string]pos), masked: make(map[string]bool), failed: make(map[string]bool),
	}
	l.cfg.origins = make(map[string]string)
	l.register(src.name)
	root := l.parse(pos{src.name, 1, 1}, src.text)
	if root.kind == scalar || root.kind == list {
		l.problem(root.pos, "", "want a mapping that begins with \"version: 1\", got %s", root.describe())
	}
	if root.kind != mapping && root.kind != empty {
		return nil, l.sorted()
	}
	l.override(root, env, flags)
	l.resolve(root)
	l.decode(root, "", reflect.ValueOf(l.cfg).Elem(), "")
	l.complete()
	l.check()
	if len(l.problems) != 0 {
		return nil, l.sorted()
	}
	return l.cfg, nil
}

// complete fills what other values decide, and reads the keys files.
func (l *loader) complete() {
	if l.cfg.Node.Name == "" && !l.failed["node.name"] {
		l.cfg.Node.Name = hostName()
	}
	for name, s := range l.cfg.Streams {
		if _, set := l.where["streams."+name+".client_may_send"]; !set {
			s.ClientMaySend = s.Backend != ""
			l.cfg.Streams[name] = s
		}
	}
	if d := &l.cfg.Node.StateDir; *d != "" {
		*d = l.path(*d)
	}
	l.placeTLS()
	l.placeStoreTLS()
	for i, path := range l.cfg.Auth.Keys.Source {
		if at := fmt.Sprintf("auth.keys.source[%d]", i); l.sound(at) {
			l.loadKeys(at, path)
		}
	}
}

// hostName is the host's own name, shortened to what a node may be called.
func hostName() string {
	name, err := os.Hostname()
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	if err != nil || forms["node"](name) != nil {
		return "node"
	}
	return name
}

func (l *loader) loadKeys(at, path string) {
	file := l.path(path)
	l.register(file)
	text, err := l.read(file, keysMax)
	if err != nil {
		l.wrong(at, "%s: %v", l.quote(at, file), err)
		return
	}
	root := l.parse(pos{file, 1, 1}, text)
	l.resolve(root)
	switch root.kind {
	case broken, empty:
		return
	case scalar, mapping:
		l.problem(root.pos, "", "want a list of keys, got %s", root.describe())
		return
	}
	for _, item := range root.items {
		var record auth.Record
		l.decode(item, fmt.Sprintf("keys[%d]", len(l.cfg.Keys)), reflect.ValueOf(&record).Elem(), "")
		l.cfg.Keys = append(l.cfg.Keys, record)
	}
}

// path is where a file named in the configuration is: next to the configuration unless it says otherwise.
func (l *loader) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(l.name), name)
}

// readFile reads a regular file or pipe of at most limit bytes. Its errors do not repeat the path.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, unwrapPath(err)
	case int64(len(text)) > limit:
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	return text, nil
}

func unwrapPath(err error) error {
	var wrapped *fs.PathError
	if errors.As(err, &wrapped) {
		return fmt.Errorf("cannot be read: %w", wrapped.Err)
	}
	return fmt.Errorf("cannot be read: %w", err)
}

// register gives file, or what stands for one, its place in the order of problems.
func (l *loader) register(file string) pos {
	if _, ok := l.rank[file]; !ok {
		l.rank[file] = len(l.rank)
	}
	return pos{file: file}
}

// problem reports what is wrong at a place.
func (l *loader) problem(at pos, path, format string, args ...any) {
	l.problems = append(l.problems, Problem{at.file, at.line, at.column, path, fmt.Sprintf(format, args...)})
	if path != "" {
		l.failed[path] = true
	}
}

// wrong reports what is wrong with the value at path, or with what path lacks: then the place is that of the nearest thing
// around it.
func (l *loader) wrong(path, format string, args ...any) {
	l.problem(l.near(path), path, "%s: %s", path, fmt.Sprintf(format, args...))
}

func (l *loader) near(path string) pos {
	for {
		if at, ok := l.where[path]; ok {
			return at
		}
		cut := max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['))
		if cut < 0 {
			return pos{l.name, 1, 1}
		}
		path = path[:cut]
	}
}

// sound reports whether none of the paths, nothing in them and nothing around them has a problem yet.
func (l *loader) sound(paths ...string) bool {
	for failed := range l.failed {
		for _, p := range paths {
			if within(failed, p) || within(p, failed) {
				return false
			}
		}
	}
	return true
}

// within reports whether path is outer or lies in it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// sorted is all problems: of the main file, then of variables, flags and keys files as they were read; inside by position.
func (l *loader) sorted() *Problems {
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		if d := l.rank[a.File] - l.rank[b.File]; d != 0 {
			return d
		}
		return cmp.Or(a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Path, b.Path))
	})
	return &Problems{l.problems}
}
