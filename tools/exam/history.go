package main

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A history is what clients asked, what they were told and when, by their own clock. No gateway is asked for any of it. It is written
// while nodes and stores come and go, and checked afterwards.
type history struct {
	limit int           // sockets of a client
	life  time.Duration // of a ticket

	mu      sync.Mutex
	issues  []deed
	uses    map[string][]deed    // by ticket
	goes    map[string]time.Time // when a ticket's socket ended: its client said goodbye, or heard that it is closed
	faults  []trouble
	open    map[string]int // sockets of a client now
	most    int            // of one client, ever
	answers map[string]int // what was answered, for the figures
}

// deed is a question and its answer.
type deed struct {
	client, ticket string // ticket: none if none was issued
	node           int
	from, to       time.Time // asked and answered
	status         int       // 0: there was no answer
}

// trouble is a time in which tickets may be refused though nobody has used them: from the moment before something was done to the store
// until all clients have had new tickets and opened them.
type trouble struct{ from, to time.Time }

func newHistory(limit int, life time.Duration) *history {
	return &history{limit: limit, life: life, uses: map[string][]deed{}, goes: map[string]time.Time{}, open: map[string]int{}, answers: map[string]int{}}
}

// issued notes a request for a ticket.
func (h *history) issued(d *deed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.issues = append(h.issues, *d)
	h.answers[fmt.Sprintf("issue %d", d.status)]++
}

// used notes a use of a ticket. What it has opened counts until left.
func (h *history) used(d *deed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.uses[d.ticket] = append(h.uses[d.ticket], *d)
	h.answers[fmt.Sprintf("use %d", d.status)]++
	if d.status == http.StatusSwitchingProtocols {
		h.open[d.client]++
		h.most = max(h.most, h.open[d.client])
	}
}

// left notes that the socket of a ticket ends now; the first time counts.
func (h *history) left(client, ticket string) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, again := h.goes[ticket]; again {
		return false
	}
	h.goes[ticket] = time.Now()
	h.open[client]--
	return true
}

// disturbed notes a time of trouble.
func (h *history) disturbed(from, to time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, trouble{from, to})
}

// opened are the tickets that have opened a socket between from and to, with whom they were for.
func (h *history) opened(from, to time.Time) (tickets map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	tickets = map[string]string{}
	for ticket, uses := range h.uses {
		for _, u := range uses {
			if u.status == http.StatusSwitchingProtocols && u.to.After(from) && u.to.Before(to) {
				tickets[ticket] = u.client
			}
		}
	}
	return tickets
}

// since returns when a client first had a ticket that was asked for after from, and when it first opened such a one; zero: not yet.
func (h *history) since(from time.Time, client string) (issued, opened time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	earlier := func(t *time.Time, u time.Time) {
		if t.IsZero() || u.Before(*t) {
			*t = u
		}
	}
	for i := len(h.issues) - 1; i >= 0; i-- { // they stand in the order of their answers, and none takes longer than httpTimeout
		d := &h.issues[i]
		if d.to.Before(from) {
			break
		}
		if d.client != client || d.status != http.StatusCreated || d.from.Before(from) {
			continue
		}
		earlier(&issued, d.to)
		for _, u := range h.uses[d.ticket] {
			if u.status == http.StatusSwitchingProtocols {
				earlier(&opened, u.to)
			}
		}
	}
	return issued, opened
}

// finding is what a check has found.
type finding struct {
	tickets, opened int
	calm            int // tickets that were used in their life and far from all faults
	unopened        int // of those, such as opened nothing, since a use of theirs had no answer or 503
	doubles         int // tickets that opened more than one socket
	above           int // openings of a client that had all its sockets
	lost            int // 401 for a ticket that nobody can have used before
	stale           int // sockets of tickets that were over
	wrong           []string
}

func (v *finding) say(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// check reads the history once it is over.
func (h *history) check() *finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := new(finding)
	for i := range h.issues {
		if d := &h.issues[i]; d.status == http.StatusCreated {
			v.tickets++
			h.checkTicket(v, d)
		}
	}
	h.checkCounts(v)
	return v
}

// checkTicket: at most one socket, none after the ticket's life, and no 401 before anybody can have spent it.
func (h *history) checkTicket(v *finding, issue *deed) {
	uses := h.uses[issue.ticket]
	opened := 0
	for _, u := range uses {
		if u.status != http.StatusSwitchingProtocols {
			continue
		}
		opened++
		if over := issue.to.Add(h.life + time.Second); u.from.After(over) { // lives end at whole seconds, rounded up
			v.stale++
			v.say("a ticket of %s opened a socket at node %d, %v after its end", issue.client, u.node, u.from.Sub(over))
		}
	}
	v.opened += min(opened, 1)
	if opened > 1 {
		v.doubles++
		v.say("a ticket of %s opened %d sockets: %s", issue.client, opened, story(issue, uses))
	}
	calm := false
	for _, u := range uses {
		if !u.to.Before(issue.from.Add(h.life)) || h.during(issue.from, u.to) {
			continue
		}
		calm = true
		// Someone may have spent it before this use was refused if his own use had begun by then.
		if u.status == http.StatusUnauthorized && !slices.ContainsFunc(uses, func(o deed) bool {
			return o.status != http.StatusUnauthorized && o.from.Before(u.to)
		}) {
			v.lost++
			v.say("a good ticket of %s was refused: %s", issue.client, story(issue, uses))
			break
		}
	}
	if calm {
		v.calm++
		if opened == 0 {
			v.unopened++
		}
	}
}

// during reports whether any fault touches the time from from to to.
func (h *history) during(from, to time.Time) bool {
	return slices.ContainsFunc(h.faults, func(f trouble) bool { return !from.After(f.to) && !f.from.After(to) })
}

// story tells what became of a ticket that is worth a look.
func story(issue *deed, uses []deed) string {
	text := fmt.Sprintf("issued by node %d in %v", issue.node, issue.to.Sub(issue.from).Round(time.Millisecond))
	told := 0
	for _, u := range uses {
		if u.status == http.StatusUnauthorized && len(uses) > storyMax { // most of them
			continue
		}
		if told++; told > storyMax {
			return text + "; ..."
		}
		text += fmt.Sprintf("; %d at node %d, %v to %v later", u.status, u.node, u.from.Sub(issue.to).Round(time.Millisecond), u.to.Sub(issue.to).Round(time.Millisecond))
	}
	return text
}

const storyMax = 8

// checkCounts: at no time has a client more sockets than it may. One is open from its answer to its end, both as the client saw them:
// for the gateways it was open for longer.
func (h *history) checkCounts(v *finding) {
	type change struct {
		at time.Time
		by int
	}
	changes := map[string][]change{}
	for ticket, uses := range h.uses {
		for _, u := range uses {
			if u.status != http.StatusSwitchingProtocols {
				continue
			}
			changes[u.client] = append(changes[u.client], change{u.to, 1})
			if end, ok := h.goes[ticket]; ok {
				changes[u.client] = append(changes[u.client], change{end, -1})
			}
		}
	}
	for client, list := range changes {
		slices.SortFunc(list, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), a.by-b.by) })
		n := 0
		for _, c := range list {
			n += c.by
			if c.by > 0 && n > h.limit {
				v.above++
				v.say("%s had %d sockets at %s, and may have %d", client, n, c.at.Format(time.StampMilli), h.limit)
			}
		}
	}
}
