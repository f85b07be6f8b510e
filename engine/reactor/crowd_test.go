package reactor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/engine/reactor"
)

// crowdedEnv makes this test binary a server that echoes with 80 descriptors, until its standard input ends. It says its
// address first and "cpu MILLISECONDS shed N panics N" for each line it reads.
const crowdedEnv = "REACTOR_TEST_CROWDED"

func crowded() int {
	limit := syscall.Rlimit{Cur: 80, Max: 80}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		fmt.Println(err)
		return 1
	}
	// MaxConns is out of the way: this is about what happens when the kernel itself says no.
	r, err := reactor.New(reactor.Options{Loops: 2, MaxConns: 10_000, Handlers: []reactor.Handler{echo()}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	addr, err := r.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	r.Start()
	fmt.Println(addr)
	line := make([]byte, 1)
	for {
		if n, err := os.Stdin.Read(line); n == 0 || err != nil {
			break
		}
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
		var s reactor.Stats
		r.Stats(&s)
		fmt.Printf("cpu %d shed %d refused %d conns %d\n", (u.Utime.Nano()+u.Stime.Nano())/1e6, s.Shed, s.Refused[reactor.RefusedFiles], s.Conns)
	}
	if err := r.Stop(context.Background()); err != nil || len(r.Failed()) > 0 {
		return 1
	}
	return 0
}

// TestDescriptorsRunOut fills a server that may have 80 descriptors with 300 connections: it lives, what is established goes
// on, it does not burn the CPU, and it accepts again within a second when there is room.
func TestDescriptorsRunOut(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crowdedEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	}()
	say := func() (line string) {
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(out, b); err != nil {
				t.Fatalf("the server has ended: %v", err)
			}
			if b[0] == '\n' {
				return line
			}
			line += string(b)
		}
	}
	addr := say()
	type report struct{ cpu, shed, refused, conns int }
	ask := func() (r report) {
		_, _ = in.Write([]byte("?"))
		if _, err := fmt.Sscanf(say(), "cpu %d shed %d refused %d conns %d", &r.cpu, &r.shed, &r.refused, &r.conns); err != nil {
			t.Fatal(err)
		}
		return r
	}
	honest := make([]*net.TCPConn, 30)
	for i := range honest {
		honest[i] = dial(t, addr)
		_, _ = io.WriteString(honest[i], "in")
		expect(t, honest[i], "in")
	}
	var crowd []*net.TCPConn
	for range 300 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			crowd = append(crowd, c.(*net.TCPConn))
		} else if !errors.Is(err, syscall.ECONNRESET) { // shed before connect had returned
			t.Fatal(err)
		}
	}
	before := ask()
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for turn := range 20 {
		for i, c := range honest {
			msg := fmt.Sprintf("turn %d of %d", turn, i)
			_, _ = io.WriteString(c, msg)
			expect(t, c, msg)
		}
		<-pace.C
	}
	full := ask()
	if full.shed == 0 || full.refused == 0 || full.refused > 60 || full.conns < 40 {
		t.Errorf("while full: %+v; expected some shed, and few tries with a back-off", full)
	}
	if used := full.cpu - before.cpu; used > 250 {
		t.Errorf("%d ms of CPU in 1 s while full", used)
	}
	for _, c := range crowd {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	released := time.Now()
	for {
		err := echoOnce(addr, released.Add(3*time.Second)) // 1 s is promised, twin and clock hold it to that; here others compute, too
		if err == nil {
			break
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("not accepting 3 s after release")
		}
	}
}

// echoOnce connects, sends a word and waits for it until deadline.
func echoOnce(addr string, deadline time.Time) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(deadline)
	_, err = io.WriteString(c, "again")
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 5))
	}
	return errors.Join(err, c.Close())
}
