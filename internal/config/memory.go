package config

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"

	"ticketgate/internal/unit"
)

// MemoryLimit is what limit, a checked memory.limit, means on the host whose root is seen through root (os.DirFS("/")): a size
// as it is; for auto the least of the host's memory and what the process's control group and those above it allow. A host
// that tells nothing has as much as an int64 counts.
func MemoryLimit(limit string, root fs.FS) unit.Size {
	var size unit.Size
	if limit != "auto" && size.UnmarshalText([]byte(limit)) == nil {
		return size
	}
	return min(hostMemory(root), groupMemory(root))
}

// hostMemory reads "MemTotal:  24550124 kB".
func hostMemory(root fs.FS) unit.Size {
	text, _ := fs.ReadFile(root, "proc/meminfo")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			return number(fields[1], 1024)
		}
	}
	return math.MaxInt64
}

// groupMemory looks at version 2 groups ("0::/system.slice/ticketgate.service") from the process's own up to the root.
func groupMemory(root fs.FS) unit.Size {
	least := unit.Size(math.MaxInt64)
	text, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for ok && group != "" {
			limit, _ := fs.ReadFile(root, path.Join("sys/fs/cgroup", group, "memory.max"))
			least = min(least, number(strings.TrimSpace(string(limit)), 1))
			if group = path.Dir(group); group == "/" || group == "." {
				break
			}
		}
	}
	return least
}

// number reads a whole number of units of so many bytes; "max" and what is no number are the largest.
func number(text string, bytes int64) unit.Size {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/bytes {
		return math.MaxInt64
	}
	return unit.Size(n * bytes)
}
