package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"ticketgate/internal/admin"
)

func init() { commands = append(commands, statusCmd) }

const (
	statusTimeout = 5 * time.Second // a node answers from memory
)

func statusCmd(e *env) *cobra.Command {
	o, output := adminFlags{verb: "status"}, ""
	c := &cobra.Command{
		Use:   "status [--config FILE | --admin URL]",
		Short: "Show whether a running gateway is ready, and what it holds",
		Long: `status asks a gateway at its admin address (/v1/status) and prints the answer. Address and token are those of its
configuration, unless --admin and --token-file name others. It exits with 0 if the gateway takes newcomers, with 1 if it does
not, and with 4 if it does not answer.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usagef("status: -o %s: want table or json", output)
			}
			at, err := o.find(e, c)
			if err != nil {
				return err
			}
			body, err := at.ask(c.Context(), "/v1/status", statusTimeout)
			if err != nil {
				return interrupted(c.Context(), err)
			}
			return at.show(e.stdout, body, output)
		},
	}
	o.add(c)
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
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
