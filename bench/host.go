package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ, 100 on every Linux that Go runs on.
const tick = time.Second / 100

// CPU is processor time of a process, all threads. Loopback traffic counts whom the kernel runs it under: mostly the
// sender.
type CPU struct{ User, System time.Duration }

// Total is both together.
func (c CPU) Total() time.Duration { return c.User + c.System }

// Sub is what c used since o.
func (c CPU) Sub(o CPU) CPU { return CPU{c.User - o.User, c.System - o.System} }

// ParseStat reads /proc/PID/stat. Its resolution is 10 ms.
func ParseStat(b []byte) (CPU, error) {
	// The name, second, may hold anything, also ")": the last one ends it (proc(5)). utime is field 14, stime 15.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return CPU{}, errors.New("bench: /proc/PID/stat is too short")
	}
	user, err := strconv.ParseUint(string(f[11]), 10, 64)
	system, err2 := strconv.ParseUint(string(f[12]), 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return CPU{}, fmt.Errorf("bench: /proc/PID/stat: %w", err)
	}
	return CPU{time.Duration(user) * tick, time.Duration(system) * tick}, nil
}

// ParseSizes reads the lines "Name: 123 kB" of /proc/PID/status, /proc/PID/smaps_rollup or /proc/meminfo; the values are
// bytes. Other lines are left out.
func ParseSizes(b []byte) map[string]int64 {
	sizes := make(map[string]int64)
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if len(f) != 2 || f[1] != "kB" {
			continue
		}
		if kib, err := strconv.ParseInt(f[0], 10, 64); err == nil {
			sizes[name] = kib << 10
		}
	}
	return sizes
}

// ParseSlab adds up /proc/slabinfo: the bytes of all slabs, used or not.
func ParseSlab(b []byte, page int64) (int64, error) {
	var sum int64
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "slabinfo") || strings.HasPrefix(line, "#") {
			continue
		}
		// name active_objs num_objs objsize objperslab pagesperslab : tunables ... : slabdata active_slabs num_slabs ...
		f := strings.Fields(line)
		if len(f) < 15 || f[12] != "slabdata" {
			return 0, fmt.Errorf("bench: /proc/slabinfo: %q", line)
		}
		pages, err := strconv.ParseInt(f[5], 10, 64)
		slabs, err2 := strconv.ParseInt(f[14], 10, 64)
		if err := errors.Join(err, err2); err != nil {
			return 0, fmt.Errorf("bench: /proc/slabinfo: %w", err)
		}
		sum += pages * slabs * page
	}
	return sum, nil
}

// Slab reads what the kernel's slabs hold, of the whole machine: from /proc/slabinfo, or, where only root may read that, as the sum in
// /proc/meminfo.
func Slab() (int64, error) { return slab("/proc") }

func slab(proc string) (int64, error) {
	b, err := os.ReadFile(proc + "/slabinfo")
	if err == nil {
		return ParseSlab(b, int64(os.Getpagesize()))
	}
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if b, err = os.ReadFile(proc + "/meminfo"); err != nil {
		return 0, err
	}
	n, ok := ParseSizes(b)["Slab"]
	if !ok {
		return 0, errors.New("bench: /proc/meminfo has no Slab")
	}
	return n, nil
}

// Memory is resident memory of a process, in bytes.
type Memory struct {
	Resident  int64 // everything, as status says it
	Anonymous int64 // of it heap, stacks and the like: without the program's file
}

// A Process is looked at from outside.
type Process struct{ PID int }

// CPU reads its processor time. The sum is exact; of it User has the resolution of ParseStat.
func (p Process) CPU() (CPU, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return CPU{}, err
	}
	c, err := ParseStat(b)
	if err != nil {
		return CPU{}, err
	}
	var t unix.Timespec
	if err := unix.ClockGettime(processClock(p.PID), &t); err != nil {
		return CPU{}, fmt.Errorf("bench: clock of process %d: %w", p.PID, err)
	}
	return CPU{User: c.User, System: time.Duration(t.Nano()) - c.User}, nil
}

// processClock is clock_getcpuclockid(3): what the scheduler has given to all threads of a process, in nanoseconds.
func processClock(pid int) int32 { return int32(^pid<<3 | cpuclockSched) }

const cpuclockSched = 2 // linux/posix-timers.h

// Memory reads its resident memory.
func (p Process) Memory() (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return Memory{}, err
	}
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID))
	if err != nil {
		return Memory{}, err
	}
	return Memory{ParseSizes(status)["VmRSS"], ParseSizes(rollup)["Anonymous"]}, nil
}

// Resident reads its resident memory alone, in bytes, which costs the kernel nothing worth mentioning.
func (p Process) Resident() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, errors.New("bench: /proc/PID/statm is too short")
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("bench: /proc/PID/statm: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// OwnResident is the resident memory of this process, in bytes.
func OwnResident() (int64, error) { return Process{os.Getpid()}.Resident() }

// OwnCPU is the processor time of this process, exact to the microsecond.
func OwnCPU() (CPU, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return CPU{}, fmt.Errorf("bench: getrusage: %w", err)
	}
	return CPU{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())}, nil
}

// ParseSchedstat reads /proc/PID/schedstat: how long a thread has been ready to run while others had its core.
func ParseSchedstat(b []byte) (waited time.Duration, err error) {
	f := bytes.Fields(b)
	if len(f) != 3 {
		return 0, errors.New("bench: schedstat has not 3 fields")
	}
	ns, err := strconv.ParseInt(string(f[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("bench: schedstat: %w", err)
	}
	return time.Duration(ns), nil
}

// OwnWait is how long the calling thread has been ready to run while others had its core. With it a client that lost its
// core to others still sees that it never rested.
func OwnWait() (time.Duration, error) {
	b, err := os.ReadFile("/proc/thread-self/schedstat")
	if err != nil {
		return 0, err
	}
	return ParseSchedstat(b)
}

// Cores lists the cores that this process may run on.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("bench: sched_getaffinity: %w", err)
	}
	var cores []int
	for i := range 8 * int(unsafe.Sizeof(set)) {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

// Pin keeps all threads of this process, also those to come, on one core, and tells Go to use one.
func Pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	// A new thread inherits the cores of the one that makes it: when a whole pass finds no new thread, none is left out.
	for seen := map[string]bool{}; ; {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		fresh := false
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || seen[t.Name()] {
				continue
			}
			seen[t.Name()], fresh = true, true
			if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("bench: sched_setaffinity: %w", err)
			}
		}
		if !fresh {
			runtime.GOMAXPROCS(1)
			return nil
		}
	}
}

// A Host is what figures depend on besides the code.
type Host struct {
	CPU    string
	Cores  int
	Memory int64
	Kernel string
	Load   float64 // the load average of the last minute, when it was read
	Go     string
}

// ReadHost describes this machine.
func ReadHost() (Host, error) {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return Host{}, err
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Host{}, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return Host{}, err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return Host{}, err
	}
	minute, _, _ := strings.Cut(string(load), " ")
	average, err := strconv.ParseFloat(minute, 64)
	if err != nil {
		return Host{}, fmt.Errorf("bench: /proc/loadavg: %w", err)
	}
	return Host{
		CPU:    ModelName(cpu),
		Cores:  runtime.NumCPU(),
		Memory: ParseSizes(mem)["MemTotal"],
		Kernel: strings.TrimSpace(string(kernel)),
		Load:   average,
		Go:     runtime.Version(),
	}, nil
}

// ModelName finds the processor's name in /proc/cpuinfo.
func ModelName(cpuinfo []byte) string {
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
