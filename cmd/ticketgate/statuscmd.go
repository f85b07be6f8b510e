package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"ticketgate/internal/admin"
	"ticketgate/internal/config"
)

func init() { commands = append(commands, statusCmd) }

const (
	statusTimeout = 5 * time.Second // a node answers from memory
	statusMax     = 1 << 20         // bytes of an answer; a loop has about 100
)

// statusOptions are the flags of status.
type statusOptions struct {
	config, admin, tokenFile string
	output                   string
}

func statusCmd(e *env) *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   "status [--config FILE | --admin URL]",
		Short: "Show whether a running gateway is ready, and what it holds",
		Long: `status asks a gateway at its admin address (/v1/status) and prints the answer. Address and token are those of its
configuration, unless --admin and --token-file name others. It exits with 0 if the gateway takes newcomers, with 1 if it does
not, and with 4 if it does not answer.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.output != "table" && o.output != "json" {
				return usagef("status: -o %s: want table or json", o.output)
			}
			at, err := o.find(e, c)
			if err != nil {
				return err
			}
			body, err := at.ask(c.Context(), statusTimeout)
			if err != nil {
				return interrupted(c.Context(), err)
			}
			return at.show(e.stdout, body, o.output)
		},
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", configFile, "the gateway's configuration, for its admin address and token")
	f.StringVar(&o.admin, "admin", "", "admin address, such as http://127.0.0.1:8082 or unix:/run/ticketgate/admin.sock, without a configuration")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the admin token (listen.admin.token)")
	f.StringVarP(&o.output, "output", "o", "table", "table or json")
	c.MarkFlagsMutuallyExclusive("config", "admin")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	_ = c.MarkFlagFilename("token-file")
	return c
}

// adminAddress is where to ask, and what to say about it if that fails.
type adminAddress struct {
	text    string // as the user knows it
	from    string // who says so
	url     string
	network string // for the dial: what url says, or a unix socket
	place   string

	token     string // "": none
	tokenFrom string
}

// find says which gateway is meant. A flag that is empty, because a script's variable is, is not one that is missing.
func (o *statusOptions) find(e *env, c *cobra.Command) (at *adminAddress, err error) {
	if c.Flags().Changed("admin") {
		at, err = adminFlag(o.admin)
	} else {
		at, err = o.adminOfConfig(e)
	}
	if err != nil {
		return nil, err
	}
	if c.Flags().Changed("token-file") {
		text, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("status: read the admin token: %w", err)
		}
		at.token = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r") // as ${file:PATH} in a configuration
		at.tokenFrom = o.tokenFile
	}
	if at.tokenFrom != "" && (at.token == "" || strings.ContainsFunc(at.token, func(r rune) bool { return r < ' ' || r > '~' })) {
		return nil, fmt.Errorf("status: %s: want the admin token, one line of ASCII: it travels in a header", at.tokenFrom)
	}
	return at, nil
}

// adminFlag reads --admin.
func adminFlag(text string) (*adminAddress, error) {
	at := &adminAddress{text: text, from: "--admin"}
	if network, path := networkOf(text); network == "unix" && strings.HasPrefix(path, "/") {
		at.unix(path)
		return at, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// Not repeated: it may hold a password.
		return nil, usagef("status: --admin: want an admin address, such as http://127.0.0.1:8082 or unix:/run/ticketgate/admin.sock")
	}
	at.url = u.JoinPath("v1", "status").String()
	return at, nil
}

// adminOfConfig finds address and token as the gateway itself finds them.
func (o *statusOptions) adminOfConfig(e *env) (*adminAddress, error) {
	c, err := config.Load(o.config, e.environ, nil)
	if err != nil { // the gateway may run all the same: it was right when it started, or who asks may not read its secrets
		return nil, &exitError{exitConfig, fmt.Sprintf("status: the configuration does not say where to ask:\n%v\n"+
			"say it with --admin URL, and --token-file FILE if the gateway asks for a token", err)}
	}
	const key = "listen.admin.address"
	at := &adminAddress{text: c.Listen.Admin.Address, from: key + ", " + c.Origin(key)}
	if token := c.Listen.Admin.Token; !token.Empty() {
		at.token, at.tokenFrom = token.Reveal(), "listen.admin.token"
	}
	network, place := networkOf(at.text)
	if network == "unix" {
		at.unix(place)
		return at, nil
	}
	host, port, err := net.SplitHostPort(place)
	if err != nil || port == "0" {
		return nil, unreachablef("status: the port of %s (%s) is not known: say where the gateway's log says it is, --admin URL", at.text, at.from)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() { // all addresses: one of them is here
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	at.url = "http://" + net.JoinHostPort(host, port) + "/v1/status"
	return at, nil
}

func (a *adminAddress) unix(path string) {
	a.network, a.place, a.url = "unix", path, "http://localhost/v1/status"
}

// show prints the answer. Its error may be that the node takes no newcomers.
func (a *adminAddress) show(w io.Writer, body []byte, output string) error {
	var s admin.Status
	err := json.Unmarshal(body, &s)
	if err != nil || s.Version == "" || s.Node == "" {
		return fmt.Errorf("status: what %s (%s) answers is no status; is it the admin address of a gateway?", a.text, a.from)
	}
	if output == "json" {
		err = printJSON(w, body)
	} else {
		err = printStatus(w, &s)
	}
	if err != nil {
		return err
	}
	if !s.Ready {
		return &exitError{exitFailed, fmt.Sprintf("status: node %s is not ready: %s", printable(s.Node), printable(s.Reason))}
	}
	return nil
}

// ask returns the body of the answer, which has to be here within patience.
func (a *adminAddress) ask(ctx context.Context, patience time.Duration) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return nil, err
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	// Neither a redirection nor a proxy of the environment is followed: the token would go along.
	client := http.Client{
		Timeout: patience,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, place string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, cmp.Or(a.network, network), cmp.Or(a.place, place))
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, a.away(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, statusMax))
	switch {
	case err != nil:
		return nil, a.away(err)
	case answer.StatusCode == http.StatusUnauthorized && a.token == "":
		return nil, fmt.Errorf("status: %s (%s) asks for the admin token: --token-file FILE", a.text, a.from)
	case answer.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("status: %s (%s) does not take the admin token of %s", a.text, a.from, a.tokenFrom)
	case answer.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("status: %s (%s) has no /v1/status; is it the admin address of a gateway of this version?", a.text, a.from)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status: %s (%s) answers %s", a.text, a.from, printable(answer.Status))
	}
	return body, nil
}

// away is the error of a gateway that does not answer.
func (a *adminAddress) away(err error) error {
	var tried *url.Error // its text repeats the address
	if errors.As(err, &tried) {
		err = tried.Err
	}
	return unreachablef("status: no answer from %s (%s): %s; is the gateway running, and this its admin address? --admin URL asks at another",
		a.text, a.from, printable(err.Error()))
}

// printJSON prints what a gateway has written as it came. Others may have put carriage returns between their words, which
// are left out.
func printJSON(w io.Writer, body []byte) error {
	var one bytes.Buffer
	if err := json.Compact(&one, body); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, printable(one.String()))
	return err
}

// printStatus is the form that people read.
func printStatus(w io.Writer, s *admin.Status) error {
	ready, store := "ready", "ok"
	if !s.Ready {
		ready = "not ready: " + printable(s.Reason)
	}
	if !s.Store.Up {
		store = "down"
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "node %s  %s  up %v  connections %d/%d  store %s %s  version %s\n", printable(s.Node), ready, time.Duration(s.Uptime)*time.Second,
		s.Connections.Used, s.Connections.Limit, printable(s.Store.Kind), store, printable(s.Version))
	if s.Cluster != nil {
		fmt.Fprint(t, clusterText(s.Cluster))
	}
	fmt.Fprintf(t, "memory  %s  %s of %s\n", printable(s.Memory.State), bytesText(s.Memory.Used), bytesText(s.Memory.Limit))
	fmt.Fprintf(t, "tls     %s\n", tlsText(&s.TLS))
	fmt.Fprintln(t, "loop\tconnections\tbusy\tqueue\tbatched")
	for i := range s.Loops {
		l := &s.Loops[i]
		batched := "no"
		if l.Batched {
			batched = "yes"
		}
		fmt.Fprintf(t, "%d\t%d\t%.0f%%\t%s\t%s\n", l.Loop, l.Connections, 100*l.Busy, bytesText(l.Queue), batched)
	}
	return t.Flush()
}

func clusterText(c *admin.Cluster) string {
	var b strings.Builder
	alive := 0
	for i := range c.Nodes {
		if c.Nodes[i].State == "alive" {
			alive++
		}
	}
	fmt.Fprintf(&b, "lease   %.1f s  mode %s  nodes %d  tickets spent by the %s (%s)", c.Lease, printable(c.Mode), alive, printable(c.Authority), printable(c.Reason))
	if c.Failures > 0 {
		fmt.Fprintf(&b, "  renewals failed %d: %s", c.Failures, printable(c.Failure))
	}
	if c.Grace {
		b.WriteString("  grace: the store may have lost nodes")
	}
	fmt.Fprintf(&b, "\nissue   %s", printable(c.Issue))
	for i := range c.Epochs {
		e, registered := &c.Epochs[i], "not registered"
		if e.Registered {
			registered = "registered"
		}
		fmt.Fprintf(&b, "  shard %d epoch %s %s", e.Shard, printable(e.Epoch), registered)
	}
	if c.Excess > 0 {
		fmt.Fprintf(&b, "  limits may be exceeded by %d", c.Excess)
	}
	return b.String() + "\n"
}

func tlsText(s *admin.TLS) string {
	text := printable(s.Mode)
	if s.Mode != admin.TLSOff {
		text += fmt.Sprintf("  connections: kernel %d, process %d", s.Kernel, s.Process)
	}
	if s.Reason != "" {
		text += "  (" + printable(s.Reason) + ")"
	}
	if s.Mode == admin.TLSProcess {
		text += "  see: ticketgate doctor --explain ktls"
	}
	return text
}

// bytesText is a number of bytes with one decimal of the largest unit that fits.
func bytesText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/(1<<10), 0
	for f >= 1<<10 && unit < 3 {
		f, unit = f/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[unit])
}

// printable is s with \uXXXX for what a terminal could obey: control characters, those that turn the direction of text, and
// others that nobody sees. In JSON the two say the same, because they can only stand in strings.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s { // a byte that is not UTF-8 is U+FFFD, which is printed
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
