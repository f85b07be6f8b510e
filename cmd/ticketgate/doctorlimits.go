package main

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/internal/unit"
)

// unlimited is a limit that there is not.
const unlimited unit.Size = math.MaxInt64

// limits are those of the process that is to hold the sockets.
type limits struct {
	files  uint64    // descriptors, the hard limit: the gateway raises its own up to it
	text   string    // how files is called
	fix    string    // what raises it, before the number
	memory unit.Size // besides that of pid's control group
	pid    int       // hostOnly: there is no process
}

// serviceUnit is what the gateway is called where systemd starts it.
const serviceUnit = "ticketgate"

// find looks for whose limits count: those of the process pid; without, of the service where there is one; else of this shell.
func (h *host) find(pid int) error {
	if pid > 0 {
		return h.ofProcess(pid)
	}
	if text, err := h.unit(); err == nil && h.ofUnit(text) { // a machine without systemd has no service
		return nil
	}
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	h.limits = limits{r.Max, fmt.Sprintf("limit %d of this shell", r.Max), "ulimit -n ", unlimited, unix.Getpid()}
	return nil
}

func (h *host) ofProcess(pid int) error {
	for line := range strings.Lines(h.read(fmt.Sprintf("proc/%d/limits", pid))) {
		rest, found := strings.CutPrefix(line, "Max open files")
		if f := strings.Fields(rest); found && len(f) > 1 {
			files := limitOf(f[1])
			h.limits = limits{files, fmt.Sprintf("limit %d of process %d", files, pid), fmt.Sprintf("prlimit --pid %d --nofile=", pid), unlimited, pid}
			return nil
		}
	}
	return fmt.Errorf("doctor: --pid %d: its limits cannot be read", pid)
}

// showUnit asks systemd for the service.
func showUnit() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", serviceUnit, "-p", "LoadState,LimitNOFILE,MemoryMax,MainPID").Output()
	return string(out), err
}

// ofUnit reads what showUnit has; false: there is no such service.
func (h *host) ofUnit(text string) bool {
	is := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		is[name] = value
	}
	if is["LoadState"] != "loaded" {
		return false
	}
	files := limitOf(is["LimitNOFILE"])
	pid, _ := strconv.Atoi(is["MainPID"]) // 0: it does not run
	h.limits = limits{files, "unit LimitNOFILE=" + is["LimitNOFILE"], "systemctl edit " + serviceUnit + "  # [Service] LimitNOFILE=",
		unit.Size(min(limitOf(is["MemoryMax"]), uint64(unlimited))), pid}
	return true
}

// limitOf reads a number; infinity, unlimited and whatever else is none are the largest.
func limitOf(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return n
}
