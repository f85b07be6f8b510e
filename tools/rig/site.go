package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A Site lets a program run what store/redistest has for tests: a Redis under Sentinel, or a Redis Cluster. It is the
// testing.TB that they want, with a folder in place of the test's own, and an error where a test would end. For one goroutine.
type Site struct {
	testing.TB // nil: what redistest does not call panics

	dir     string
	dirs    int
	cleanup []func()
}

// NewSite returns a Site that keeps its files in dir, which exists.
func NewSite(dir string) *Site { return &Site{dir: dir} }

// failure is what Fatal ends Try with.
type failure struct{ error }

// Try runs f, in which the test may fail, and returns how it failed.
func (s *Site) Try(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// Close ends all that was started, the last first. It may be called again.
func (s *Site) Close() {
	for len(s.cleanup) > 0 {
		last := len(s.cleanup) - 1
		f := s.cleanup[last]
		s.cleanup = s.cleanup[:last]
		f()
	}
}

// Helper implements testing.TB.
func (s *Site) Helper() {}

// Cleanup implements testing.TB: Close calls f.
func (s *Site) Cleanup(f func()) { s.cleanup = append(s.cleanup, f) }

// TempDir implements testing.TB. Whoever made the site's folder removes it.
func (s *Site) TempDir() string {
	s.dirs++
	dir := filepath.Join(s.dir, strconv.Itoa(s.dirs))
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.Fatal(err)
	}
	return dir
}

// Fatal implements testing.TB: it ends what Try runs.
func (s *Site) Fatal(args ...any) { panic(failure{errors.New(fmt.Sprint(args...))}) }

// Fatalf implements testing.TB, as Fatal.
func (s *Site) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }
