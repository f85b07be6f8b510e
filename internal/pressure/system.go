package pressure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime/metrics"
	"strconv"
	"strings"
)

// Memory reads what a process uses, through a view of the root of the file system.
type Memory struct {
	root   fs.FS
	limit  int64
	page   int64
	groups []string // folders of the process's control groups that may have a limit
}

// NewMemory returns a reader for this process, whose memory may be limit bytes; root is os.DirFS("/") and page
// os.Getpagesize().
func NewMemory(root fs.FS, limit int64, page int) *Memory {
	m := &Memory{root: root, limit: limit, page: int64(page)}
	text, _ := fs.ReadFile(root, "proc/self/cgroup") // without it the process's own memory is what counts
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		for ok && group != ".." && !strings.HasPrefix(group, "../") {
			m.groups = append(m.groups, path.Join("sys/fs/cgroup", group))
			if group == "" || group == "." {
				break
			}
			group = path.Dir(group)
		}
	}
	return m
}

// Read is the resident memory of the process, of the limit. Where one of its control groups (version 2) is nearer to a
// limit of its own, it is what counts there.
func (m *Memory) Read() (Reading, error) {
	text, err := fs.ReadFile(m.root, "proc/self/statm")
	if err != nil {
		return Reading{}, fmt.Errorf("memory in use: %w", err)
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return Reading{}, errors.New("memory in use: /proc/self/statm is too short")
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return Reading{}, fmt.Errorf("memory in use: /proc/self/statm: %w", err)
	}
	r := Reading{Used: pages * m.page, Limit: m.limit}
	for _, g := range m.groups {
		r = nearest(r, m.group(g))
	}
	return r, nil
}

// group is what counts in a control group: all that the kernel could not simply drop, its socket buffers included. A group
// without a limit has the zero Reading.
func (m *Memory) group(dir string) Reading {
	limit, ok := m.number(dir + "/memory.max")
	if !ok {
		return Reading{}
	}
	used, ok := m.number(dir + "/memory.current")
	if !ok {
		return Reading{}
	}
	stat, _ := fs.ReadFile(m.root, dir+"/memory.stat") // without it the page cache counts too
	for line := range strings.Lines(string(stat)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case "active_file", "inactive_file", "slab_reclaimable":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				used -= n
			}
		}
	}
	return Reading{Used: max(0, used), Limit: limit}
}

// number reads a file of one number. "max", which means none, is no number.
func (m *Memory) number(name string) (int64, bool) {
	text, err := fs.ReadFile(m.root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n >= 0
}

// Need is the part of Heap that is in use: what was live after the last collection, stacks, the runtime's own.
func Need() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	free, objects, live := int64(s[0].Value.Uint64()), int64(s[1].Value.Uint64()), int64(s[2].Value.Uint64())
	return Heap() - free - max(0, objects-live)
}

// Heap is what Go's runtime has from the system and has not given back: what its soft limit (GOMEMLIMIT) is about.
func Heap() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
