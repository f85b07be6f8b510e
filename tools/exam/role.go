package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"ticketgate/tools/rig"
)

// Parts of a test that must not share a process with what is measured, or that are to be stopped or cut off, are roles: this
// program runs itself again with roleVar set. A role reads lines until its input ends and then returns.

const roleVar = "TICKETGATE_EXAM_ROLE"

// role is such a part. args are its command line; hear gives the next line, false at the end; say writes one.
type role func(args []string, hear func() (string, bool), say func(format string, args ...any)) error

// roles are all that exist; each file adds its own.
var roles = map[string]role{}

// play runs the role that the environment names. done: there is one, and code is its exit code.
func play(args []string) (code int, done bool) {
	name := os.Getenv(roleVar)
	if name == "" {
		return 0, false
	}
	in := bufio.NewScanner(os.Stdin)
	hear := func() (string, bool) {
		ok := in.Scan()
		return in.Text(), ok
	}
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	f := roles[name]
	if f == nil {
		fmt.Fprintf(os.Stderr, "exam: no role %q\n", name)
		return 2, true
	}
	if err := f(args, hear, say); err != nil {
		fmt.Fprintf(os.Stderr, "exam: role %s: %v\n", name, err)
		return 1, true
	}
	return 0, true
}

// gently is what a crowd of clients runs under, so that it cannot take the processors from those whom it is to disturb: all that
// they leave idle is the crowd's, and whoever else wakes up has the processor at once. With nice(1) alone a crowd keeps it for
// some milliseconds first (sched(7)), three times for each honest message. In the short form, which judges no times, nothing is
// done: its crowds are small, and a machine that runs other tests beside it would leave them nothing.
func (x *exam) gently() []string {
	if x.size < 1 {
		return nil
	}
	return []string{"chrt", "--idle", "0"}
}

// startRole runs a role in a process of its own, started by the command under, nil: directly.
func startRole(name string, under []string, args ...string) (*rig.Helper, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return rig.StartHelper([]string{roleVar + "=" + name}, append(append(under[:len(under):len(under)], exe), args...)...)
}

// hearing waits for a helper's line and reads it by format, as Sscanf does.
func hearing(ctx context.Context, h *rig.Helper, format string, into ...any) error {
	line, err := h.Hear(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Sscanf(line, format, into...); err != nil {
		return fmt.Errorf("the helper says %q, want %q: %w", line, format, err)
	}
	return nil
}
