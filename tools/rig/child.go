package rig

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startChild starts c so that it dies with this process, and returns a channel that gets how it ended. The kernel watches
// the thread that forked (PR_SET_PDEATHSIG), so one thread is kept for it until the child is gone. What reads a pipe of c's
// closes its channel in read when it has got all: Wait closes pipes.
func startChild(c *exec.Cmd, read ...<-chan struct{}) (ended <-chan error, err error) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, end := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			for _, done := range read {
				<-done
			}
			end <- c.Wait()
		}
	}()
	return end, <-started
}
