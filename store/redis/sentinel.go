package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// sentinels find the primary that sentinels name.
type sentinels struct {
	store     *Store
	addresses []string
	master    string
	dialler   dialler // of sentinels, which have users of their own

	// Owned by who calls find.
	asked several
	now   string // the primary
	epoch uint64 // of the configuration that made it that
}

// named is what a sentinel says.
type named struct {
	addr  string
	epoch uint64 // of its configuration: the later of two failovers has the higher
}

// find asks all sentinels: one that was cut off would go on naming the former primary. The answer of the latest configuration
// counts, and only if that server says, too, that it is a primary.
func (f *sentinels) find(ctx context.Context) (*view, error) {
	f.asked.dialler = &f.dialler
	var best named
	agree := make(map[named]int)
	var problems []error
	for _, a := range f.asked.ask(ctx, f.addresses, "SENTINEL", "MASTER", f.master) {
		n, err := parseMaster(&a)
		if err != nil {
			problems = append(problems, fmt.Errorf("sentinel %s: %w", a.addr, err))
			continue
		}
		agree[n]++
		if best.addr == "" || n.epoch > best.epoch {
			best = n
		}
	}
	switch {
	case best.addr == "":
		return nil, errors.Join(problems...)
	case best.epoch < f.epoch && 2*agree[best] <= len(f.addresses): // most of them: they were set up anew
		return nil, errors.New("no sentinel that answers knows of the last failover")
	case best.addr != f.now:
		l, err := f.store.connect(ctx, best.addr)
		if err != nil && f.now != "" {
			return nil, fmt.Errorf("%s, which sentinels name: %w", best.addr, err)
		}
		if err == nil {
			l.close()
		}
	}
	f.now, f.epoch = best.addr, best.epoch
	return &view{masters: []string{best.addr}}, nil
}

// parseMaster reads the answer to SENTINEL MASTER.
func parseMaster(a *answer) (named, error) {
	if a.err != nil {
		return named{}, a.err
	}
	m, err := a.msg.AsStrMap()
	if err != nil {
		return named{}, err
	}
	epoch, err := strconv.ParseUint(m["config-epoch"], 10, 64)
	if err != nil || m["ip"] == "" || m["port"] == "" {
		return named{}, errors.New("its answer has no ip, port and config-epoch")
	}
	return named{net.JoinHostPort(m["ip"], m["port"]), epoch}, nil
}

// watch listens at one sentinel after the other for failovers.
func (f *sentinels) watch(ctx context.Context, again func()) {
	for i := 0; ctx.Err() == nil; i++ {
		l, err := f.dialler.dial(ctx, f.addresses[i%len(f.addresses)])
		if err == nil {
			listen(ctx, l, "+switch-master", func(string) { again() }, again)
			l.close()
		}
		pause(ctx, probeEvery)
	}
}

func (f *sentinels) close() { f.asked.close() }

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
