package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Per is whose use a limit adds up: one name, or several, sorted and joined with commas. Then each combination counts for
// itself: [client, stream] is each client at each stream.
type Per string

// What can be added up by. The limits of a plan are its own: a client under two plans has two buckets.
const (
	PerConnection Per = "connection" // one socket
	PerClient     Per = "client"
	PerKey        Per = "key"    // the API key, or other credential, that asked for the ticket
	PerIP         Per = "ip"     // the address: IPv4 in full, of IPv6 the /64
	PerStream     Per = "stream" // the configured stream
	PerPlan       Per = "plan"   // all sockets of the plan; in the cluster with scope: cluster, else at each node
	PerNode       Per = "node"   // all sockets of the plan at one node
)

// UnmarshalYAML reads one name or a list of names.
func (p *Per) UnmarshalYAML(decode func(any) error) error {
	var list []string
	if decode(&list) == nil {
		if list != nil && len(list) == 0 {
			return errors.New("an empty list; name whose use the limit adds up, such as client")
		}
		slices.Sort(list)
		*p = Per(strings.Join(list, ","))
		return nil
	}
	var one string
	if err := decode(&one); err != nil {
		return err
	}
	*p = Per(one)
	return nil
}

// Has reports whether part is one of what p adds up by.
func (p Per) Has(part Per) bool {
	for one := range strings.SplitSeq(string(p), ",") {
		if one == string(part) {
			return true
		}
	}
	return false
}

// Who is whose use it is. What is not known is empty; a limit that asks for it cannot be kept.
type Who struct {
	Client, Key  string
	Addr         netip.Addr // of the client
	Stream, Plan string
	Node         string // this one
}

// Name returns what distinguishes w among those that p adds up; false: w does not say. Different ones never have the same
// name under one p. It is not for PerConnection.
func (p Per) Name(w *Who) (name string, ok bool) {
	if !strings.Contains(string(p), ",") {
		name = w.part(p)
		return name, name != ""
	}
	var b []byte
	for one := range strings.SplitSeq(string(p), ",") {
		part := w.part(Per(one))
		if part == "" {
			return "", false
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(part))) // so that "a", "bc" is not "ab", "c"
		b = append(b, part...)
	}
	return string(b), true
}

// part is one of w's names.
func (w *Who) part(p Per) string {
	switch p {
	case PerClient:
		return w.Client
	case PerKey:
		return w.Key
	case PerIP:
		if w.Addr.IsValid() {
			return strconv.FormatUint(AddressKey(w.Addr), 16)
		}
	case PerStream:
		return w.Stream
	case PerPlan:
		return w.Plan
	case PerNode:
		return w.Node
	}
	return ""
}

// impossible says why a limit of some kind cannot be per one of its names.
type impossible map[Per]string

var (
	notAtIssue = impossible{
		PerConnection: "a connection does not exist yet when the ticket is issued",
		PerIP:         "the address is not known when the ticket is issued and the slot reserved",
		PerNode:       "any node may open the ticket, so which one is not known when the slot is reserved; listen.gate.admit.connections bounds a node",
	}
	notForTickets = impossible{PerConnection: "a connection does not exist yet when the ticket is issued"}
)

// every is what a limit on messages or bytes can be per.
var every = []Per{PerConnection, PerClient, PerKey, PerIP, PerStream, PerPlan, PerNode}

// per stores what p says, if a limit of this kind can be so.
func (c *compiler) per(to *Per, p Per, not impossible) {
	if p == "" {
		return
	}
	var have []string
	for _, h := range every {
		if _, no := not[h]; !no {
			have = append(have, string(h))
		}
	}
	list := strings.Split(string(p), ",")
	for i, one := range list {
		why, no := not[Per(one)]
		switch {
		case no:
			c.problem("per", "%s cannot be per %s: %s; use one of %s, or a list of them", c.name, one, why, strings.Join(have, ", "))
			return
		case !slices.Contains(have, one):
			c.problem("per", "unknown value %q%s; use one of %s, or a list of them", one, nearest(one, have), strings.Join(have, ", "))
			return
		case i > 0 && list[i-1] == one:
			c.problem("per", "%q stands twice in the list", one)
			return
		case Per(one) == PerConnection && len(list) > 1:
			c.problem("per", "connection in a list: a connection has one client, key, ip, stream, plan and node, so per: connection says the same")
			return
		}
	}
	*to = p
}

// errNoName is a session without the name that l adds up by.
func errNoName(l *Limit) error { return fmt.Errorf("%s per %s: %w", l.Name, l.Per, ErrNoName) }
