package bench

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// ParseSends reads what `ss -tmnH` prints of established sockets: the bytes of kernel memory that each has in its send queue
// (sk_wmem_queued: what is sent and not acknowledged and what is not sent, with the kernel's own frames around it).
func ParseSends(b []byte) ([]int64, error) {
	var all []int64
	for line := range strings.Lines(string(b)) {
		_, memory, ok := strings.Cut(line, "skmem:(")
		if !ok {
			continue
		}
		memory, _, ok = strings.Cut(memory, ")")
		queued, found := int64(-1), false
		for field := range strings.SplitSeq(memory, ",") {
			if rest, w := strings.CutPrefix(field, "w"); w {
				n, err := strconv.ParseInt(rest, 10, 64)
				queued, found = n, err == nil
			}
		}
		if !ok || !found {
			return nil, fmt.Errorf("bench: ss: %q", strings.TrimSpace(line))
		}
		all = append(all, queued)
	}
	return all, nil
}

// Sends asks ss for the send queues of all established sockets of this machine with the local port.
func Sends(ctx context.Context, port int) ([]int64, error) {
	var said bytes.Buffer
	ss := exec.CommandContext(ctx, "ss", "-tmnH", "state", "established", "sport", "=", fmt.Sprintf(":%d", port))
	ss.Stderr = &said
	out, err := ss.Output()
	if err != nil {
		return nil, fmt.Errorf("bench: ss: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return ParseSends(out)
}
