package bench

import (
	"cmp"
	"fmt"
	"os/exec"

	"golang.org/x/sys/unix"
)

// Needs is what a run cannot do without.
type Needs struct {
	Files    int      // open descriptors of this process, and of each server, which inherits the limit
	Programs []string // found through PATH
}

// packages are Debian's names for programs that are called otherwise.
var packages = map[string]string{"go": "golang", "ss": "iproute2", "perf": "linux-perf", "node": "nodejs"}

// Check returns one sentence for everything that is missing, with what to do about it. look is exec.LookPath and files
// the limit of open descriptors, as Files reports it.
func (n Needs) Check(files int, look func(string) (string, error)) []string {
	var missing []string
	if files < n.Files {
		missing = append(missing, fmt.Sprintf("open files: the limit is %d, this run needs %d: ulimit -n %d", files, n.Files, n.Files))
	}
	for _, p := range n.Programs {
		if _, err := look(p); err != nil {
			missing = append(missing, fmt.Sprintf("%s is not installed: apt-get install %s", p, cmp.Or(packages[p], p)))
		}
	}
	return missing
}

// Preflight raises the soft limit of open descriptors to the hard one and checks this machine.
func (n Needs) Preflight() ([]string, error) {
	files, err := raiseFiles()
	if err != nil {
		return nil, err
	}
	return n.Check(files, exec.LookPath), nil
}

// Files is how many descriptors a process may have, when it has raised its limit.
func Files() (int, error) { return raiseFiles() }

func raiseFiles() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("bench: getrlimit: %w", err)
	}
	r.Cur = r.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("bench: setrlimit: %w", err)
	}
	return int(min(r.Cur, 1<<30)), nil
}
