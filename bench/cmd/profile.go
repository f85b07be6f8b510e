package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ticketgate/bench"
)

const (
	profileFor = time.Second
	profileHz  = "999"
)

// record keeps l busy once more, after its rounds, and writes what its server did meanwhile into the profile folder:
// perf's own file, and the functions that took most. It is perf that looks, from outside, so that the same can be asked of
// all servers and none carries anything for it; and no figure comes from a round that it looks at.
func (r *runner) record(l *load) (err error) {
	base := filepath.Join(r.profile, strings.NewReplacer(" ", "-", ",", "").Replace(l.title+" "+l.name))
	perf := exec.CommandContext(r.ctx, "perf", "record", "-q", "-e", "cpu-clock", "-F", profileHz, "-g", "-p", strconv.Itoa(l.server.PID), "-o", base+".data")
	if err := perf.Start(); err != nil {
		return fmt.Errorf("perf: %w", err)
	}
	l.start()
	if err = l.loop.RunUntil(r.ctx, profileFor, l.idle); errors.Is(err, bench.ErrTimeout) {
		err = nil
	}
	l.stop()
	err = errors.Join(err, l.loop.RunUntil(r.ctx, giveUp, l.idle), l.failed(), perf.Process.Signal(syscall.SIGINT))
	var exit *exec.ExitError
	if ended := perf.Wait(); ended != nil && !errors.As(ended, &exit) { // it reports the interruption as its own end
		err = errors.Join(err, ended)
	}
	if err != nil {
		return fmt.Errorf("perf: %w", err)
	}
	text, err := exec.CommandContext(r.ctx, "perf", "report", "-i", base+".data", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.3",
		"--sort", "dso,symbol").Output()
	if err != nil {
		return fmt.Errorf("perf report: %w", err)
	}
	return os.WriteFile(base+".txt", text, 0o644)
}
