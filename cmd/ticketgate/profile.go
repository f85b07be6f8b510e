//go:build profile

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// profileFor is how long each profile lasts: who stops the process loses one at most.
const profileFor = 2 * time.Second

// For "make pgo": processor profiles, one after the other, in the folder that PGO_PROFILES names.
func init() {
	dir := os.Getenv("PGO_PROFILES")
	if dir == "" {
		return
	}
	go func() {
		for i := 0; ; i++ {
			if err := profile(filepath.Join(dir, fmt.Sprintf("%d-%d.pprof", os.Getpid(), i))); err != nil {
				fmt.Fprintln(os.Stderr, "profile:", err)
				return
			}
		}
	}()
}

// profile writes one, and gives it its name when it is whole.
func profile(path string) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	time.Sleep(profileFor)
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}
