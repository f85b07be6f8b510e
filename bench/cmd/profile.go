package main

import (
	"errors"
	"fmt"
	"io"
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
func (r *runner) record(l *load) error {
	base := filepath.Join(r.profile, strings.NewReplacer(" ", "-", ",", "").Replace(l.title+" "+l.name))
	p, err := r.startPerf(l.server, base+".data")
	if err != nil {
		return fmt.Errorf("perf: %w", err)
	}
	l.start()
	if err = l.loop.RunUntil(r.ctx, profileFor, l.idle); errors.Is(err, bench.ErrTimeout) {
		err = nil
	}
	l.stop()
	if err := errors.Join(err, l.loop.RunUntil(r.ctx, giveUp, l.idle), l.failed(), p.stop()); err != nil {
		return fmt.Errorf("profile of %s: %w", l.name, err)
	}
	text, err := exec.CommandContext(r.ctx, "perf", "report", "-i", base+".data", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.3",
		"--sort", "dso,symbol").Output()
	if err != nil {
		return fmt.Errorf("perf report: %w", err)
	}
	return os.WriteFile(base+".txt", text, 0o644)
}

// A perf is a perf(1) that looks at one process.
type perf struct {
	cmd        *exec.Cmd
	send, hear *os.File // its control channel; perf looks at nothing when it is gone
}

// startPerf returns when perf looks at p.
func (r *runner) startPerf(p bench.Process, file string) (*perf, error) {
	cmd := exec.CommandContext(r.ctx, "perf", "record", "-q", "-e", "cpu-clock", "-F", profileHz, "-g", "-p", strconv.Itoa(p.PID), "-o", file,
		"-D", "-1", "--control", "fd:3,4") // it begins with "enable", and says so
	orders, send, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	hear, answers, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, orders.Close(), send.Close())
	}
	cmd.ExtraFiles = []*os.File{orders, answers}
	err = cmd.Start()
	if err := errors.Join(err, orders.Close(), answers.Close()); err != nil {
		return nil, errors.Join(err, send.Close(), hear.Close())
	}
	f := &perf{cmd, send, hear}
	_, err = send.WriteString("enable\n")
	if err == nil {
		_, err = io.ReadFull(hear, make([]byte, len("ack\n")))
	}
	if err != nil {
		return nil, errors.Join(err, f.stop())
	}
	return f, nil
}

// stop ends perf when it has written all that it saw.
func (f *perf) stop() error {
	err := f.cmd.Process.Signal(syscall.SIGINT)
	var exit *exec.ExitError
	if ended := f.cmd.Wait(); ended != nil && !errors.As(ended, &exit) { // it reports the interruption as its own end
		err = errors.Join(err, ended)
	}
	return errors.Join(err, f.send.Close(), f.hear.Close())
}
