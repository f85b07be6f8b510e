// Package lives keeps the names of a node's lives in a file, so that the next process of the node can prove that they are over:
// the file is locked for as long as the process lives, and who has got the lock is the only one.
package lives

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"ticketgate/ticket"
)

// kept is how many lives are remembered. A process has one for each lease that it lost, and one.
const kept = 64

// fileMax is what is read of a file that may be anybody's: a line has at most 64 bytes.
const fileMax = kept * 64

// A File is the lock and the list. One process at a time has it.
//
//	<boot id> <incarnation, 16 hex digits>      a line for each life, the newest last
//
// The lock proves something only where it was held: on the kernel that runs now. A line of another boot is of a machine that
// was started again, or of another one whose disk, or a copy of it, this is. The list does not tell which, so it does not count.
type File struct {
	path string
	boot string

	mu   sync.Mutex
	f    *os.File
	list []string // lines of this boot
}

// ErrTaken is a lock that another process holds.
var ErrTaken = errors.New("another process holds the lock")

// Open takes the lock of the node name in dir. The error of a lock that is held wraps ErrTaken. The file stays when the process
// ends, the lock does not.
func Open(dir, name string) (*File, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("tell this boot of the machine from others: %w", err)
	}
	return open(dir, name, strings.TrimSpace(string(boot)))
}

func open(dir, name, boot string) (_ *File, err error) {
	f := &File{path: filepath.Join(dir, name+".lock"), boot: boot}
	if f.f, err = os.OpenFile(f.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.f.Close())
		}
	}()
	switch err := syscall.Flock(int(f.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, fmt.Errorf("%s: %w", f.path, ErrTaken)
	case err != nil:
		return nil, fmt.Errorf("%s: lock: %w", f.path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f.f, fileMax))
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(text) {
		if s := string(line); f.life(s) != 0 {
			f.list = append(f.list, s)
		}
	}
	return f, nil
}

// life is what a line says, 0 if it says nothing, because it was not written whole, or was written in another boot.
func (f *File) life(line string) ticket.Incarnation {
	rest, ok := strings.CutPrefix(line, f.boot+" ")
	digits, whole := strings.CutSuffix(rest, "\n")
	if !ok || !whole || len(digits) != 16 {
		return 0
	}
	i, err := strconv.ParseUint(digits, 16, 64)
	if err != nil {
		return 0
	}
	return ticket.Incarnation(i)
}

// Former are the lives of processes before this one, which are over: as many as are remembered, before the first Add.
func (f *File) Former() []ticket.Incarnation {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []ticket.Incarnation
	for _, line := range f.list {
		all = append(all, f.life(line))
	}
	return all
}

// Add writes i down. It is on the disk when Add returns. Any goroutine may call it.
func (f *File) Add(i ticket.Incarnation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := append(f.list[max(0, len(f.list)-kept+1):len(f.list):len(f.list)], fmt.Sprintf("%s %016x\n", f.boot, uint64(i)))
	text := strings.Join(list, "")
	// In its place: the lock is the file's, and another file under its name would be free. What a crash leaves of the end is no
	// whole line.
	if _, err := f.f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	if err := f.f.Truncate(int64(len(text))); err != nil {
		return err
	}
	if err := f.f.Sync(); err != nil {
		return err
	}
	f.list = list
	return nil
}

// Close gives the lock back.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Close()
}
