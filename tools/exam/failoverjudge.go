package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// judge prints what the history shows.
func (f *failoverRun) judge(kind string) {
	v := f.h.check()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.x.figure("%s: tickets %d, opened %d, more than once %d; uses and answers %v; most sockets of a client %d of %d; closed by gateways %v",
		kind, v.tickets, v.opened, v.doubles, f.h.answers, f.h.most, failoverLimit, f.closed)
	f.x.figure("%s: history: used in calm times %d, of which opened nothing since a use had no clear answer %d, good but refused %d; openings beyond the limit %d; opened after their life %d",
		kind, v.calm, v.unopened, v.lost, v.above, v.stale)
	for _, text := range v.wrong {
		f.x.want(false, "%s: %s", kind, text)
	}
	f.x.want(v.calm > 0 && v.opened > 0, "%s: nothing was used in calm times", kind)
	if f.x.size >= 1 { // in a short run tickets that had no clear answer keep slots for most of it
		f.x.want(f.h.most == failoverLimit, "%s: the most that a client had is %d, want %d", kind, f.h.most, failoverLimit)
	}
	f.x.want(f.h.answers["issue 429"] > 0, "%s: nobody was refused by the limit", kind)
	for what, n := range f.wrong {
		f.x.want(false, "%s: %d times %s", kind, n, what)
	}
	for code, n := range f.closed { // a lease that ends in a long failover closes them
		f.x.want(code == "1013", "%s: gateways closed %d sockets with %s", kind, n, code)
	}
}

// free wants no slot to be taken when all have gone, and each client to get all of its own.
func (f *failoverRun) free(ctx context.Context, kind string) error {
	begun := time.Now()
	held := -1
	for ; held != 0 && time.Since(begun) < failoverPatience; _ = rest(ctx, failoverPoll) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var err error
		if held, err = f.held(); err != nil {
			return err
		}
	}
	f.x.figure("%s: %.1f s after the last socket %d slots are held", kind, time.Since(begun).Seconds(), held)
	f.x.want(held == 0, "%s: %d slots are still held", kind, held)
	t := newTruth(failoverLimit)
	defer t.closeAll()
	ctx, cancel := context.WithTimeout(ctx, failoverLife+failoverPatience) // a ticket whose answer was lost has its slot for its life
	defer cancel()
	for i, client := range f.clients {
		for n := i; t.of(client) < failoverLimit; n++ {
			if got, err := f.want(ctx, t, client, n%len(f.nodes), n%len(f.nodes)); err != nil {
				return err
			} else if got != admitted {
				if err := rest(ctx, failoverPoll); err != nil {
					return fmt.Errorf("%s gets %d of its %d slots: %w", client, t.of(client), failoverLimit, err)
				}
			}
		}
	}
	f.x.figure("%s: %.1f s after the last socket all %d clients have all their %d slots again", kind, time.Since(begun).Seconds(), len(f.clients), failoverLimit)
	f.x.want(t.above == 0, "%s: %d openings beyond the limit", kind, t.above)
	return nil
}

// held adds up the sockets that the primaries count.
func (f *failoverRun) held() (held int, err error) {
	err = f.site.Try(func() {
		for _, s := range f.servers {
			if role, err := s.Do("ROLE"); err != nil || !strings.HasPrefix(fmt.Sprint(role), "[master") {
				continue
			}
			keys, _ := s.Do("KEYS", "tg:*}:h:*")
			all, _ := keys.([]any)
			for _, key := range all {
				values, err := s.Do("HVALS", fmt.Sprint(key))
				if err != nil {
					f.site.Fatal(err)
				}
				list, _ := values.([]any)
				for _, v := range list {
					n := 0
					if _, err := fmt.Sscanf(fmt.Sprint(v), "%d:", &n); err != nil {
						f.site.Fatalf("%v holds %v: %v", key, v, err)
					}
					held += n
				}
			}
		}
	})
	return held, err
}

// odd notes an answer that breaks a promise.
func (f *failoverRun) odd(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrong[fmt.Sprintf(format, args...)]++
}

// statusOK reports whether a use may be answered so.
func statusOK(status, retry int) bool {
	return status == http.StatusSwitchingProtocols || status == http.StatusUnauthorized || status == http.StatusServiceUnavailable && retry >= 1
}
