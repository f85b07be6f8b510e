package config

import (
	"errors"
	"reflect"
)

// LoadText is Load for a text whose files cannot be read.
func LoadText(name, text string, env []string) (*Config, error) {
	unreadable := func(string, int64) ([]byte, error) { return nil, errors.New("cannot be read: no files here") }
	return load(source{name, []byte(text), unreadable}, env, nil)
}

// A Key is one key of the format, for the test of the manual.
type Key struct {
	Path    string // "<name>" stands for a name of one's own
	Default string
	Range   string // "low,high"
	OneOf   string
}

// Keys lists every key of the format that holds a value.
func Keys() []Key {
	keys, _ := keysUnder("", reflect.TypeFor[Config]())
	return keys
}

// LaterKeys lists the keys that are known for later.
func LaterKeys() []string {
	_, later := keysUnder("", reflect.TypeFor[Config]())
	return later
}

func keysUnder(path string, t reflect.Type) (keys []Key, later []string) {
	names, unbuilt := keysOf(t)
	for _, name := range unbuilt {
		later = append(later, join(path, name))
	}
	for name, field := range names {
		at, of := join(path, name), field.Type
		if of.Kind() == reflect.Map {
			at, of = at+".<name>", of.Elem()
		}
		if of.Kind() == reflect.Struct && !isScalar(of) {
			k, l := keysUnder(at, of)
			keys, later = append(keys, k...), append(later, l...)
			continue
		}
		keys = append(keys, Key{at, field.Tag.Get("default"), field.Tag.Get("range"), field.Tag.Get("oneof")})
	}
	return keys, later
}
