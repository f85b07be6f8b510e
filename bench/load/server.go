package load

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/bench"
	"ticketgate/internal/mono"
)

// A watch looks at the server's processes, through /proc.
type watch struct{ pids []int }

// look finds the processes that listen on address, if it is one of this machine. Only root sees those of other users.
func look(address string) (*watch, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	local, err := isLocal(at.Addr())
	if err != nil || !local {
		return nil, err
	}
	inodes := make(map[string]bool)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, inode := range listening(string(b), at) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err != nil || !inodes[link] { // processes come and go
			continue
		}
		pid, err := strconv.Atoi(strings.Split(fd, "/")[2])
		if err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, nil
	}
	slices.Sort(pids)
	return &watch{pids}, nil
}

// gate watches also who listens on address, to which tickets lead: it may be another process than the handshake's. Its memory before the
// first socket is what it has now, after the first ticket.
func (r *runner) gate(address string) error {
	if len(r.s.PIDs) > 0 || r.gates[address] { // each worker names it, and looking costs seconds beside a million descriptors
		return nil
	}
	if r.gates == nil {
		r.gates = make(map[string]bool)
	}
	r.gates[address] = true
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	local, err := isLocal(at.Addr())
	r.local = r.local || local
	if err != nil || !local {
		return err
	}
	more, err := look(address)
	if err != nil || more == nil {
		return err
	}
	if r.watch == nil {
		r.watch = &watch{}
	}
	more.pids = slices.DeleteFunc(more.pids, func(pid int) bool { return slices.Contains(r.watch.pids, pid) })
	now, err := more.see()
	if err != nil {
		return nil //nolint:nilerr // it went meanwhile, and its sockets tell it
	}
	all := []*seen{&r.first, &r.lastS}
	if r.start > 0 { // churn: what it had used before the run is no part of it
		all = append(all, &r.full)
		if r.spent == nil {
			r.spent = make(map[string]time.Duration)
		}
		maps.Copy(r.spent, more.spent())
	}
	for _, s := range all {
		s.cpu += now.cpu
		s.rss += now.rss
	}
	r.watch.pids = append(r.watch.pids, more.pids...)
	return nil
}

func isLocal(a netip.Addr) (bool, error) {
	if a.IsLoopback() || a.IsUnspecified() {
		return true, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a.Unmap()
	}), nil
}

// listening finds the inodes of the sockets that listen on at, or on its port of all addresses, in the text of /proc/net/tcp or tcp6
// (proc_net_tcp: state 0A). Another server may have the same port of another address.
func listening(text string, at netip.AddrPort) []string {
	var all []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) <= 9 || f[3] != "0A" {
			continue
		}
		l, ok := localOf(f[1])
		if ok && l.Port() == at.Port() && (l.Addr() == at.Addr() || l.Addr().IsUnspecified() || at.Addr().IsUnspecified()) {
			all = append(all, f[9])
		}
	}
	return all
}

// localOf reads an address of /proc/net/tcp: 32-bit words as they lie in this machine's memory, a colon, the port.
func localOf(text string) (netip.AddrPort, bool) {
	address, port, ok := strings.Cut(text, ":")
	b, err := hex.DecodeString(address)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), ok
}

// A seen is the server at one moment.
type seen struct {
	at  time.Duration // on mono.System
	cpu time.Duration
	rss int64
}

func (w *watch) see() (seen, error) {
	s := seen{at: time.Duration(mono.System.Now())}
	for _, pid := range w.pids {
		p := bench.Process{PID: pid}
		cpu, err := p.CPU()
		if err != nil {
			return seen{}, fmt.Errorf("server process %d: %w", pid, err)
		}
		rss, err := p.Resident()
		if err != nil {
			return seen{}, fmt.Errorf("server process %d: %w", pid, err)
		}
		s.cpu += cpu.Total()
		s.rss += rss
	}
	return s, nil
}

// spent is how long each thread of the server has run or been ready to run, by its id; without those that cannot be read.
func (w *watch) spent() map[string]time.Duration {
	all := make(map[string]time.Duration)
	for _, pid := range w.pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			continue
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil { // threads come and go
				continue
			}
			var ran, waited int64
			if n, _ := fmt.Sscan(string(b), &ran, &waited); n == 2 {
				all[strings.Split(file, "/")[4]] = time.Duration(ran + waited)
			}
		}
	}
	return all
}

// cores is on how many cores the server may run; 0: not known.
func (w *watch) cores() int {
	var all unix.CPUSet
	for _, pid := range w.pids {
		var one unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &one); err != nil {
			return 0
		}
		for i := range all {
			all[i] |= one[i]
		}
	}
	return all.Count()
}

// kernelNow reads what the kernel's memory is; what cannot be read is 0.
func kernelNow() Slab {
	s := Slab{Slabs: slabsNow()}
	if b, err := os.ReadFile("/proc/net/sockstat"); err == nil {
		s.TCP = tcpMemory(string(b))
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		m := bench.ParseSizes(b)
		s.Used = m["MemTotal"] - m["MemFree"] - m["Buffers"] - m["Cached"] - m["AnonPages"]
	}
	return s
}

// slabsNow is what the kernel's slabs hold; 0: this kernel does not tell.
func slabsNow() int64 {
	n, err := bench.Slab()
	if err != nil {
		return 0
	}
	return n
}

// tcpMemory is the memory of TCP's buffers in the text of /proc/net/sockstat, which counts in pages.
func tcpMemory(text string) int64 {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "TCP:")
		f := strings.Fields(rest)
		for i := 0; ok && i+1 < len(f); i += 2 {
			if f[i] == "mem" {
				pages, err := strconv.ParseInt(f[i+1], 10, 64)
				if err == nil {
					return pages * int64(os.Getpagesize())
				}
			}
		}
	}
	return 0
}
