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
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"ticketgate/internal/config"
)

// What the verbs have in common that talk to a running gateway: where its admin address is, and how to ask there.

// unixAddress begins an address that is the path of a socket.
const unixAddress = "unix:"

// adminFlags say which gateway is meant.
type adminFlags struct {
	verb    string // that asks, for its errors
	changes bool   // it may want to change something, for which the socket is the better way

	config, admin, tokenFile string
}

func (o *adminFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.config, "config", configFile, "the gateway's configuration, for its admin address and token")
	f.StringVar(&o.admin, "admin", "", "admin address, such as http://127.0.0.1:8082 or unix:/run/ticketgate/admin.sock, without a configuration")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the admin token (listen.admin.token)")
	c.MarkFlagsMutuallyExclusive("config", "admin")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	_ = c.MarkFlagFilename("token-file")
}

// adminAddress is where to ask, and what to say about it if that fails.
type adminAddress struct {
	verb string // that asks

	text    string // as the user knows it
	from    string // who says so
	base    string // URL without path
	network string // for the dial: what url says, or a unix socket
	place   string

	token     string // "": none
	tokenFrom string
}

// find says which gateway is meant. A flag that is empty, because a script's variable is, is not one that is missing.
func (o *adminFlags) find(e *env, c *cobra.Command) (at *adminAddress, err error) {
	if c.Flags().Changed("admin") {
		at, err = adminFlag(o.verb, o.admin)
	} else {
		at, err = o.adminOfConfig(e)
	}
	if err != nil {
		return nil, err
	}
	if c.Flags().Changed("token-file") {
		text, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("%s: read the admin token: %w", o.verb, err)
		}
		at.token = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r") // as ${file:PATH} in a configuration
		at.tokenFrom = o.tokenFile
	}
	if at.tokenFrom != "" && (at.token == "" || strings.ContainsFunc(at.token, func(r rune) bool { return r < ' ' || r > '~' })) {
		return nil, fmt.Errorf("%s: %s: want the admin token, one line of ASCII: it travels in a header", o.verb, at.tokenFrom)
	}
	return at, nil
}

// adminFlag reads --admin.
func adminFlag(verb, text string) (*adminAddress, error) {
	at := &adminAddress{verb: verb, text: text, from: "--admin"}
	if network, path := networkOf(text); network == "unix" && strings.HasPrefix(path, "/") {
		at.unix(path)
		return at, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// Not repeated: it may hold a password.
		return nil, usagef("%s: --admin: want an admin address, such as http://127.0.0.1:8082 or unix:/run/ticketgate/admin.sock", verb)
	}
	at.base = strings.TrimSuffix(u.String(), "/")
	return at, nil
}

// adminOfConfig finds address and token as the gateway itself finds them.
func (o *adminFlags) adminOfConfig(e *env) (*adminAddress, error) {
	c, err := config.Load(o.config, e.environ, nil)
	if err != nil { // the gateway may run all the same: it was right when it started, or who asks may not read its secrets
		return nil, &exitError{exitConfig, fmt.Sprintf("%s: the configuration does not say where to ask:\n%v\n"+
			"say it with --admin URL, and --token-file FILE if the gateway asks for a token", o.verb, err)}
	}
	const key = "listen.admin.address"
	at := &adminAddress{verb: o.verb, text: c.Listen.Admin.Address, from: key + ", " + c.Origin(key)}
	if token := c.Listen.Admin.Token; !token.Empty() {
		at.token, at.tokenFrom = token.Reveal(), "listen.admin.token"
	}
	if path := c.Listen.Admin.Socket; path != "" && o.changes {
		at.text, at.from = unixAddress+path, "listen.admin.socket"
	}
	network, place := networkOf(at.text)
	if network == "unix" {
		at.unix(place)
		return at, nil
	}
	host, port, err := net.SplitHostPort(place)
	if err != nil || port == "0" {
		return nil, unreachablef("%s: the port of %s (%s) is not known: say where the gateway's log says it is, --admin URL", o.verb, at.text, at.from)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() { // all addresses: one of them is here
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	at.base = "http://" + net.JoinHostPort(host, port)
	return at, nil
}

func (a *adminAddress) unix(path string) {
	a.network, a.place, a.base = "unix", path, "http://localhost"
}

// ask returns the body of the answer to a GET, which has to be here within patience.
func (a *adminAddress) ask(ctx context.Context, path string, patience time.Duration) ([]byte, error) {
	status, text, body, err := a.call(ctx, http.MethodGet, path, nil, patience)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %s (%s) has no %s; is it the admin address of a gateway of this version?", a.verb, a.text, a.from, path)
	case status != http.StatusOK:
		return nil, fmt.Errorf("%s: %s (%s) answers %s", a.verb, a.text, a.from, printable(text))
	}
	return body, nil
}

// call sends one request and returns the answer's status and body. That the token is missing or wrong is an error.
func (a *adminAddress) call(ctx context.Context, method, path string, send []byte, patience time.Duration) (status int, text string, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(send))
	if err != nil {
		return 0, "", nil, err
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	if send != nil {
		r.Header.Set("Content-Type", "application/json")
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
		return 0, "", nil, a.away(err)
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, answerMax))
	switch {
	case err != nil:
		return 0, "", nil, a.away(err)
	case answer.StatusCode == http.StatusUnauthorized && a.token == "":
		return 0, "", nil, fmt.Errorf("%s: %s (%s) asks for the admin token: --token-file FILE", a.verb, a.text, a.from)
	case answer.StatusCode == http.StatusUnauthorized:
		return 0, "", nil, fmt.Errorf("%s: %s (%s) does not take the admin token of %s", a.verb, a.text, a.from, a.tokenFrom)
	}
	return answer.StatusCode, answer.Status, body, nil
}

// answerMax is more than any answer has: a thousand connections are 400 KiB.
const answerMax = 4 << 20

// do is call for what a path answers with 200 or 202; any other answer is an error with the words of its problem.
func (a *adminAddress) do(ctx context.Context, method, path string, send any, patience time.Duration) (body []byte, err error) {
	var text []byte
	if send != nil {
		if text, err = json.Marshal(send); err != nil {
			return nil, err
		}
	}
	status, line, body, err := a.call(ctx, method, path, text, patience)
	if err != nil {
		return nil, err
	}
	if status == http.StatusOK || status == http.StatusAccepted {
		return body, nil
	}
	var p struct{ Title, Detail string }
	if json.Unmarshal(body, &p) != nil || p.Title == "" {
		return nil, fmt.Errorf("%s: %s (%s) answers %s; is it the admin address of a gateway of this version?", a.verb, a.text, a.from, printable(line))
	}
	if p.Detail != "" {
		p.Title += ": " + p.Detail
	}
	return nil, fmt.Errorf("%s: %s", a.verb, printable(lower(p.Title)))
}

// lower begins s as the rest of a sentence.
func lower(s string) string {
	for i, r := range s {
		return string(unicode.ToLower(r)) + s[i+len(string(r)):]
	}
	return s
}

// away is the error of a gateway that does not answer.
func (a *adminAddress) away(err error) error {
	var tried *url.Error // its text repeats the address
	if errors.As(err, &tried) {
		err = tried.Err
	}
	return unreachablef("%s: no answer from %s (%s): %s; is the gateway running, and this its admin address? --admin URL asks at another",
		a.verb, a.text, a.from, printable(err.Error()))
}
