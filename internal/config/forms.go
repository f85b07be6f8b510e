package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"ticketgate/engine/proxy"
	"ticketgate/handshake/auth"
	"ticketgate/internal/unit"
	"ticketgate/ticket"
)

// A Secret is text that nobody prints by accident. The zero Secret is "there is none".
type Secret struct{ text string }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s.text == "" }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(text []byte) error {
	s.text = string(text)
	return nil
}

// Format writes "(secret)" or "(none)" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.masked()) }

// MarshalText is what Format writes.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.masked()), nil }

// LogValue implements slog.LogValuer with what Format writes.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.masked()) }

func (s Secret) masked() string {
	if s.Empty() {
		return "(none)"
	}
	return "(secret)"
}

// A Pattern is a regular expression that has to match a whole value: a caller's parameter that merely contains a match is
// refused. It matches in linear time.
type Pattern struct{ *regexp.Regexp }

// patternMax bounds a pattern's text.
const patternMax = 1 << 10

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Pattern) UnmarshalText(text []byte) error {
	if len(text) > patternMax {
		return fmt.Errorf("a pattern of %d bytes; at most %d", len(text), patternMax)
	}
	// On its own first: "a)(b" closes the group that is put around it.
	if _, err := regexp.Compile(string(text)); err != nil {
		return fmt.Errorf("%q is not a regular expression of RE2: %w", text, err)
	}
	whole, err := regexp.Compile(`\A(?:` + string(text) + `)\z`)
	if err != nil {
		return fmt.Errorf("%q is not a regular expression of RE2: %w", text, err)
	}
	p.Regexp = whole
	return nil
}

// keyRules is how the keys of a map look, by their keys tag.
var keyRules = map[string]*regexp.Regexp{
	"name":  regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,62}\z`),
	"param": regexp.MustCompile(`\A[A-Za-z_][A-Za-z0-9_]{0,31}\z`),
}

var keyWants = map[string]string{
	"name":  "a name is 1 to 63 of a-z, 0-9, - and _, and begins with a letter or digit",
	"param": "a parameter's name is 1 to 32 letters, digits and _, and begins with none of the digits",
}

// none stands in a list of origins for clients that send no Origin.
const none = "none"

// forms are the checks of single texts, by their form tag. The errors go on with a sentence that begins with the value.
var forms = map[string]func(string) error{
	"node":           checkNode,
	"address":        checkAddress,
	"proxy-peer":     checkProxyPeer,
	"slow-then":      checkSlowThen,
	"tls":            checkTLS,
	"path":           checkPath,
	"socket-path":    checkSocketForm,
	"origin":         checkOrigin,
	"origin-or-none": checkOriginOrNone,
	"public-url":     checkPublicURL,
	"redis-url":      checkRedisURL,
	"redis-address":  checkRedisAddress,
	"prefix":         checkPrefix,
	"memory-limit":   checkMemoryLimit,
	"target":         checkTarget,
	"key-source":     checkKeySource,
	"ticket-keys":    func(s string) error { _, err := ticket.ParseKeyRing(s); return misread(err) },
	"key-hash":       func(s string) error { _, err := auth.ParseRing(s); return misread(err) },
}

func misread(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("is not a key ring: %w", err)
}

var nodeName = regexp.MustCompile(`\A[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\z`)

func checkNode(s string) error {
	if !nodeName.MatchString(s) {
		return errors.New("is not a node's name: 1 to 63 of a-z, 0-9, . and -")
	}
	return nil
}

// checkAddress wants an IP address, or nothing for all of them, and a port. Names are refused: what they stand for can
// change between two starts.
func checkAddress(s string) error {
	if path, ok := strings.CutPrefix(s, unixScheme); ok {
		return checkSocketPath(path)
	}
	wrong := errors.New(`is not an address such as "127.0.0.1:8080", "[::1]:8080", ":8080" or "unix:/run/ticketgate/gate.sock"`)
	host, port, found := cutLast(s, ':')
	if n, err := strconv.ParseUint(port, 10, 16); !found || err != nil || strconv.FormatUint(n, 10) != port {
		return wrong
	}
	if host == "" {
		return nil
	}
	if _, err := netip.ParseAddrPort(s); err != nil {
		return wrong
	}
	return nil
}

// checkSocketForm is for a socket that can be nothing else, so its path stands alone. Empty: there is none.
func checkSocketForm(s string) error {
	if s != "" && !strings.HasPrefix(s, "/") {
		return errors.New(`is not the absolute path of a socket, such as "/run/ticketgate/admin.sock"`)
	}
	if s == "" {
		return nil
	}
	return checkSocketPath(s)
}

// unixScheme begins an address that is the path of a unix socket.
const unixScheme = "unix:"

// socketPathMax is what the kernel has room for (sockaddr_un, less its NUL).
const socketPathMax = 107

func checkSocketPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.ContainsRune(path, 0):
		return errors.New(`is not the absolute path of a socket, such as "unix:/run/ticketgate/gate.sock"`)
	case len(path) > socketPathMax:
		return fmt.Errorf("is a path of %d bytes; the kernel takes %d", len(path), socketPathMax)
	}
	return nil
}

// Addresses are where a listener listens: one address, or a list of them.
type Addresses []string

// UnmarshalYAML reads one address or a list.
func (a *Addresses) UnmarshalYAML(decode func(any) error) (err error) {
	*a, err = oneOrMore(decode, "an empty list; write where to listen, such as :9443")
	return err
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func checkTLS(s string) error {
	if s != none {
		return errors.New("is known, but TLS where tickets are asked for is not available in this version; write none and let a proxy in front end it")
	}
	return nil
}

// hostForm is a lower-case host or bracketed IPv6 address, with a port or without.
var hostForm = regexp.MustCompile(`\A(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?\z`)

func isHost(s string) bool {
	parts := hostForm.FindStringSubmatch(s)
	if parts == nil {
		return false
	}
	port, _ := strconv.Atoi(parts[1]) // "" is 0
	return port <= 65535
}

// checkOrigin wants an origin as browsers write it (RFC 6454, 6.2), because it is compared byte by byte.
func checkOrigin(s string) error {
	scheme, host, _ := strings.Cut(s, "://")
	if scheme != "https" && scheme != "http" || !isHost(host) {
		return errors.New(`is not an origin such as "https://app.example.com": lower case, no path, no wildcard`)
	}
	if scheme == "https" && strings.HasSuffix(host, ":443") || scheme == "http" && strings.HasSuffix(host, ":80") {
		return errors.New("names the scheme's own port, which browsers leave out")
	}
	return nil
}

func checkOriginOrNone(s string) error {
	if s == none {
		return nil
	}
	return checkOrigin(s)
}

func checkPublicURL(s string) error {
	scheme, host, _ := strings.Cut(s, "://")
	if scheme != "ws" && scheme != "wss" || !isHost(host) {
		return errors.New(`is not a URL such as "wss://rt.example.com": lower case, no path`)
	}
	return nil
}

// checkRedisURL never shows the URL: it may hold a password.
func checkRedisURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("is not a URL")
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" || !isHost(u.Host) {
		return errors.New(`is not a URL such as "redis://10.0.0.5:6379/0" (rediss:// with TLS)`)
	}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		if _, err := strconv.ParseUint(path, 10, 16); err != nil {
			return errors.New("ends with something else than the number of a database, such as /0")
		}
	}
	for key := range u.Query() {
		if key != "db" && key != "skip_verify" {
			return errors.New(`has a setting that is not known behind "?"; sentinels and nodes of a cluster stand in store.addresses`)
		}
	}
	return nil
}

func checkRedisAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || n == 0 || host == "" || !isHost(s) {
		return errors.New(`is not a host and a port such as "10.0.0.5:6379"`)
	}
	return nil
}

var prefixForm = regexp.MustCompile(`\A[A-Za-z0-9:._-]{1,32}\z`)

// checkPrefix refuses braces: they would move every key of a Redis Cluster into one slot.
func checkPrefix(s string) error {
	if !prefixForm.MatchString(s) {
		return errors.New("is not 1 to 32 letters, digits and :._-")
	}
	return nil
}

// memoryMin is what a gateway without sockets needs, with room to start.
const memoryMin = unit.Size(64 << 20)

func checkMemoryLimit(s string) error {
	var size unit.Size
	if s == "auto" {
		return nil
	}
	if size.UnmarshalText([]byte(s)) != nil {
		return errors.New("is neither auto nor a size such as 8GiB")
	}
	if size < memoryMin {
		return fmt.Errorf("is out of range: %v or more", memoryMin)
	}
	return nil
}

func checkTarget(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "ws" && u.Scheme != "wss" || !isHost(u.Host):
		return errors.New(`is not a URL such as "ws://10.0.1.11:7001/ws"`)
	case u.Scheme == "wss":
		return errors.New("is known, but wss:// is not available in this version; want ws://")
	case u.User != nil || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return errors.New("has a user or fragment, which no WebSocket request carries")
	}
	return nil
}

func checkKeySource(s string) error {
	switch s {
	case "":
		return errors.New("is not a path")
	case "store":
		return errors.New("is known, but keys in the store are not available in this version; name files")
	}
	return nil
}

// unixPeer stands in a list of proxies for who connects to a unix socket.
const unixPeer = "unix"

// checkProxyPeer wants a range of addresses as it is compared: a bit behind its length would be ignored, and so would a
// range of IPv4 addresses in IPv6's clothes, because peers are IPv4 then.
func checkProxyPeer(s string) error {
	if s == unixPeer {
		return nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return fmt.Errorf("is one address; write it with /%d behind", a.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return errors.New(`is not an address range such as 10.0.0.0/8, nor "unix"`)
	case p.Addr().Is4In6():
		return errors.New("is a range of IPv4 addresses in IPv6 notation; write it as IPv4, such as 10.0.0.0/8")
	case p != p.Masked():
		return errors.New("is not the first address of its range; write a range as 10.0.0.0/8, not 10.0.0.1/8")
	}
	return nil
}

// Policy is p as the gate asks it; the zero Policy if From is empty.
func (p *ProxyProtocol) Policy() proxy.Policy {
	var to proxy.Policy
	for _, s := range p.From {
		if s == unixPeer {
			to.Unix = true
		} else {
			to.From = append(to.From, netip.MustParsePrefix(s)) // checkProxyPeer has taken it
		}
	}
	to.Required = p.Required && len(p.From) > 0
	return to
}

// checkSlowThen has a word on what works elsewhere; the rest is the field's oneof.
func checkSlowThen(s string) error {
	if s == "pause" {
		return errors.New("is for one sender and one reader: a feed has many readers, and stops for none; write close, drop-oldest or latest-only")
	}
	return nil
}
