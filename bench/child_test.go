package bench_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/bench"
)

// The test program is also the child that the tests start: BENCH_CHILD says which kind.
func TestMain(m *testing.M) {
	child, ok := map[string]func() error{"serve": childServes, "fail": childFails, "parent": childStarts}[os.Getenv("BENCH_CHILD")]
	if !ok {
		os.Exit(m.Run())
	}
	if err := child(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

// childServes says hello, connects to BENCH_DIAL and ends on SIGTERM.
func childServes() error {
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Println("hello")
	fmt.Println("a second line") // the last one: a write to a parent that is gone would end this process too early
	if address := os.Getenv("BENCH_DIAL"); address != "" {
		c, err := net.Dial("tcp4", address)
		if err != nil {
			return err
		}
		go func() { // ends with the process, and ends it when the test has gone
			_, _ = io.Copy(io.Discard, c)
			stop <- syscall.SIGTERM
		}()
	}
	<-stop
	return nil
}

func childFails() error { return errors.New("no such setting") }

// childStarts starts a child of its own and waits to be killed.
func childStarts() error {
	runtime.LockOSThread()
	if err := os.Setenv("BENCH_CHILD", "serve"); err != nil {
		return err
	}
	if _, err := bench.Start(firstCore(), os.Args[0]); err != nil {
		return err
	}
	select {}
}

func firstCore() int {
	cores, err := bench.Cores()
	if err != nil {
		panic(err)
	}
	return cores[0]
}

func TestChild(t *testing.T) {
	t.Setenv("BENCH_CHILD", "serve")
	c, err := bench.Start(firstCore(), os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	line, err := c.Address(t.Context())
	if line != "hello" || err != nil {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := c.Memory(); err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(c.PID, 0); err != syscall.ESRCH {
		t.Errorf("it is still there, or not reaped: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestChildFails(t *testing.T) {
	t.Setenv("BENCH_CHILD", "fail")
	c, err := bench.Start(firstCore(), os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Address(t.Context()); err == nil || !strings.Contains(err.Error(), "no such setting") {
		t.Errorf("%v", err)
	}
	if err := c.Stop(); err == nil {
		t.Error("Stop hides that the child failed")
	}
	if _, err := bench.Start(firstCore(), "/no/such/program"); err == nil {
		t.Error("started what is not there")
	}
}

// A child does not survive a parent that is killed and cannot clean up.
func TestChildDiesWithParent(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "BENCH_CHILD=parent", "BENCH_DIAL="+l.Addr().String())
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	grandchild, err := l.Accept()
	if err := errors.Join(err, parent.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	if err := grandchild.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, grandchild); n != 0 || err != nil { // until the grandchild's end closes it
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := grandchild.Close(); err != nil {
		t.Error(err)
	}
}
