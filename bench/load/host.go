package load

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ticketgate/bench"
)

// sysctls are the kernel's settings on which figures depend: queues, ports, buffers and descriptors.
var sysctls = []string{
	"fs.file-max", "fs.nr_open", "kernel.io_uring_disabled", "net.core.busy_poll", "net.core.rmem_max", "net.core.somaxconn", "net.core.wmem_max",
	"net.ipv4.ip_local_port_range", "net.ipv4.tcp_congestion_control", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_mem", "net.ipv4.tcp_rmem",
	"net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_wmem", "net.netfilter.nf_conntrack_max",
}

// readHost describes this machine, and what of it this process may use.
func readHost() (*HostInfo, error) {
	h := HostInfo{Sysctl: make(map[string]string)}
	var err error
	if h.Host, err = bench.ReadHost(); err != nil {
		return nil, err
	}
	if h.Name, err = os.Hostname(); err != nil {
		return nil, err
	}
	if h.Files, err = bench.Files(); err != nil {
		return nil, err
	}
	if h.Affinity, err = bench.Cores(); err != nil {
		return nil, err
	}
	h.Machine = ThisMachine()
	for _, name := range sysctls {
		if b, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))); err == nil { // not every kernel has each
			h.Sysctl[name] = strings.Join(strings.Fields(string(b)), " ")
		}
	}
	return &h, nil
}

// sameSysctls are those of sysctls in which two runs that are compared must agree. The others are computed from the memory that there is,
// which differs a little from boot to boot, or bound what is not reached.
var sameSysctls = []string{
	"kernel.io_uring_disabled", "net.core.busy_poll", "net.core.somaxconn", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_congestion_control", "net.ipv4.tcp_tw_reuse",
}

// ThisMachine is what HostInfo.Machine is of results from here; "" where nothing tells machines of one name apart.
func ThisMachine() string { return machineOf("/etc/machine-id") }

// machineOf is a name for the machine whose id is in file; "": it has none. The id itself is not to be given away (machine-id(5)).
func machineOf(file string) string {
	id, err := os.ReadFile(file)
	if err != nil || len(bytes.TrimSpace(id)) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, bytes.TrimSpace(id))
	mac.Write([]byte("ticketgate bench"))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// loadMost is the load average for each core from which on others have a part in the figures.
const loadMost = 0.5

// notes are what a reader has to know of the machine.
func (h *HostInfo) notes() []string {
	if each := h.Load / float64(max(h.Cores, 1)); each > loadMost {
		return []string{fmt.Sprintf("the machine was busy with something else: load average %.2f on %d core%s at the start", h.Load, h.Cores, plural(h.Cores))}
	}
	return nil
}

// kernelPerSocket is by how much the kernel's slabs grew until all sockets were open, a socket: of both ends where the server is on
// this machine. False: it is not known, or there were too few sockets.
func (r *Result) kernelPerSocket() (float64, bool) {
	o := &r.Opening
	if r.Kernel == nil || r.Kernel[0].Slabs == 0 || o.Opened < manySockets {
		return 0, false
	}
	for _, p := range r.Series {
		if p.SlabSize > 0 && float64(p.Open) >= 0.99*float64(o.Opened) { // a few may be lost before all are there
			return float64(p.SlabSize-r.Kernel[0].Slabs) / float64(p.Open), true
		}
	}
	return 0, false
}

// KernelEnd is what one end of an idle socket took in the kernel; false: that is not known.
func (r *Result) KernelEnd() (float64, bool) {
	each, ok := r.kernelPerSocket()
	if r.Server != nil { // the other end is here too
		each /= 2
	}
	return each, ok && each > 0
}
