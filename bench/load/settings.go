package load

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Settings is what a run is asked to do: what two runs must have in common to be compared.
type Settings struct {
	Verb     string        `json:"verb"`
	Target   string        `json:"target,omitempty"` // handshake address of a gateway
	Plain    string        `json:"plain,omitempty"`  // or a WebSocket server without tickets
	Key      string        `json:"-"`
	Stream   string        `json:"stream,omitempty"`
	Clients  int           `json:"clients,omitempty"`
	Sockets  int           `json:"sockets,omitempty"`
	Ramp     float64       `json:"ramp,omitempty"`
	Insist   bool          `json:"insist,omitempty"` // another attempt for each socket that could not be opened
	Rate     string        `json:"rate,omitempty"`   // for ParseSchedule; "": closed loop
	Poisson  bool          `json:"poisson,omitempty"`
	InFlight int           `json:"in_flight,omitempty"`
	Size     int           `json:"size,omitempty"`
	Duration time.Duration `json:"duration"`
	Settle   time.Duration `json:"settle"`
	Procs    int           `json:"procs"`
	Lanes    int           `json:"lanes"`
	Sources  []string      `json:"sources,omitempty"`
	Seed     uint64        `json:"seed"`
	Backend  string        `json:"backend,omitempty"` // where relay listens as the backend
	Attacks  []string      `json:"attacks,omitempty"`
	Hostile  int           `json:"hostile,omitempty"` // peers of each attack
	PIDs     []int         `json:"-"`
}

// Check says what is wrong with s.
func (s *Settings) Check() error {
	if (s.Target == "") == (s.Plain == "") {
		return errors.New("want --target, the handshake address of a gateway, or --plain, a WebSocket server's ws:// address")
	}
	if s.Plain != "" {
		if _, err := plainOf(s.Plain); err != nil {
			return err
		}
		if s.Verb == Tickets {
			return errors.New("tickets: a plain WebSocket server has none: want --target")
		}
	} else if err := s.checkTarget(); err != nil {
		return err
	}
	switch {
	case s.Duration <= 0:
		return fmt.Errorf("--duration %s: want more than 0", s.Duration)
	case s.hasSockets() && s.Sockets <= 0:
		return fmt.Errorf("-c %d: want at least one socket", s.Sockets)
	case s.Procs < 0 || s.Procs > 1000:
		return fmt.Errorf("--procs %d: want 1 to 1000", s.Procs)
	case s.Lanes < 1:
		return fmt.Errorf("--lanes %d: want at least 1", s.Lanes)
	case s.Size < 0 || s.Size > 15<<20:
		return fmt.Errorf("--size %d: want 0 to 15 MiB", s.Size)
	case s.Verb == Relay && s.Size < RelaySizeMin:
		return fmt.Errorf("--size %d: messages of relay tell two times: want at least %d", s.Size, RelaySizeMin)
	case !(s.Ramp >= 0 && s.Ramp <= rateMax): // also of what is no number
		return fmt.Errorf("--ramp %v: want sockets a second, or 0 for as fast as they come", s.Ramp)
	case s.Rate == "" && s.InFlight < 1:
		return fmt.Errorf("--in-flight %d: want at least 1", s.InFlight)
	case s.Clients < 0 || s.Clients > 9_999_999:
		return fmt.Errorf("--clients %d: want 0 to 9999999", s.Clients)
	case s.Verb == Relay && s.Backend == "":
		return errors.New("relay: want --backend ADDRESS: bench listens there as the backend that the stream relays to")
	}
	for _, kind := range s.Attacks {
		if !slices.Contains(Attacks, kind) {
			return fmt.Errorf("--attack %s: there are %s", kind, strings.Join(Attacks, ", "))
		}
	}
	for _, text := range s.Sources {
		if a, err := netip.ParseAddr(text); err != nil || !a.Is4() {
			return fmt.Errorf("--source %s: want IPv4 addresses, such as 127.0.0.2 or 127.0.0.2-127.0.0.9", text)
		}
	}
	_, err := s.schedule()
	return err
}

func (s *Settings) checkTarget() error {
	u, err := url.Parse(s.Target)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("--target %q: want the handshake address, such as http://127.0.0.1:8080", s.Target)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("--target %q: want scheme, host and port alone, such as http://127.0.0.1:8080", s.Target)
	case u.Scheme == "https":
		return fmt.Errorf("--target %s: bench speaks no TLS; give an address behind it, or a listener without", s.Target)
	case s.Key == "":
		return errors.New("no API key: give --key, or set TICKETGATE_KEY")
	case strings.ContainsFunc(s.Key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("this is no API key: it has a space, a line end or another character that no key has")
	case s.Stream == "":
		return errors.New("no stream: give --stream")
	}
	return nil
}

// apiHost is the host of Target, which Check has seen.
func (s *Settings) apiHost() string {
	u, err := url.Parse(s.Target)
	if err != nil {
		return ""
	}
	return u.Host
}

// hasSockets says that the verb begins with Sockets open ones.
func (s *Settings) hasSockets() bool { return s.Verb != Tickets && s.Verb != Churn }

// messages says that the verb sends messages.
func (s *Settings) messages() bool {
	return s.Verb == Echo || s.Verb == Relay || s.Verb == Soak || s.Verb == Hostile
}

// schedule is nil for a closed loop.
func (s *Settings) schedule() (*Schedule, error) {
	if s.Rate == "" {
		return nil, nil //nolint:nilnil // that is what it says
	}
	all, err := ParseSchedule(s.Rate, s.Duration)
	all.Poisson = s.Poisson
	return &all, err
}

// A place is a WebSocket server.
type place struct{ address, host, path string }

func plainOf(text string) (place, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "ws" {
		hint := "want a WebSocket address, such as ws://127.0.0.1:9000/echo"
		if err == nil && u.Scheme == "wss" {
			hint = "bench speaks no TLS: want a ws:// address"
		}
		return place{}, fmt.Errorf("--plain %q: %s", text, hint)
	}
	path := u.RequestURI()
	address, err := resolve(u.Host, "80")
	return place{address, u.Host, path}, err
}

// resolve turns host or host:port into an IPv4 address and port.
func resolve(host, port string) (string, error) {
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, port)
	}
	a, err := net.ResolveTCPAddr("tcp4", host)
	if err != nil {
		return "", fmt.Errorf("%s: %w", host, err)
	}
	at := a.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String(), nil
}

// ParseSources reads "127.0.0.2,127.0.0.4-127.0.0.9": IPv4 addresses and ranges of them.
func ParseSources(text string) ([]string, error) {
	var all []string
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := netip.ParseAddr(first)
		b := a
		if err == nil && isRange {
			b, err = netip.ParseAddr(last)
		}
		if err != nil || !a.Is4() || !b.Is4() || b.Less(a) {
			return nil, fmt.Errorf("--source %q: want IPv4 addresses, such as 127.0.0.2 or 127.0.0.2-127.0.0.9", part)
		}
		for {
			if len(all) == 1<<16 {
				return nil, fmt.Errorf("--source %q: more than 65536 addresses", part)
			}
			all = append(all, a.String())
			if a == b {
				break
			}
			a = a.Next()
		}
	}
	return all, nil
}
