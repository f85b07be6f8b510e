package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

// The verbs with which operators look at sockets, close them, and take back what was given. Each is one request to the admin API.

func init() { commands = append(commands, clientCmd, connCmd, ticketCmd) }

// operateTimeout is for a request that may look at a million sockets.
const operateTimeout = 15 * time.Second

// operation is one verb on its way.
type operation struct {
	at     adminFlags
	output string
	lists  bool // -o wide means something
}

// command makes a verb of what do answers and show prints as a table.
func (o *operation) command(e *env, c *cobra.Command, do func(*cobra.Command, *adminAddress, []string) ([]byte, error), show func(*tabwriter.Writer, []byte, bool) error) *cobra.Command {
	forms := "table, json or yaml"
	if o.lists {
		forms = "table, wide, json or yaml"
	}
	o.at.verb, o.at.changes = strings.Fields(c.Use)[0], true
	c.RunE = func(c *cobra.Command, args []string) error {
		switch o.output {
		case "table", "json", "yaml":
		default:
			if o.output != "wide" || !o.lists {
				return usagef("-o %s: want %s", o.output, forms)
			}
		}
		o.at.verb = strings.TrimPrefix(c.CommandPath(), "ticketgate ")
		at, err := o.at.find(e, c)
		if err != nil {
			return err
		}
		body, err := do(c, at, args)
		if err != nil {
			return interrupted(c.Context(), err)
		}
		return o.print(e.stdout, at, body, show)
	}
	o.at.add(c)
	c.Flags().StringVarP(&o.output, "output", "o", "table", forms)
	return c
}

func (o *operation) print(w io.Writer, at *adminAddress, body []byte, show func(*tabwriter.Writer, []byte, bool) error) error {
	if !json.Valid(body) {
		return fmt.Errorf("%s: what %s (%s) answers is not JSON; is it the admin address of a gateway?", at.verb, at.text, at.from)
	}
	switch o.output {
	case "json":
		return printJSON(w, body)
	case "yaml":
		text, err := yaml.JSONToYAML(body)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if _, err := fmt.Fprintln(w, printable(strings.TrimSuffix(line, "\n"))); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if err := show(t, body, o.output == "wide"); err != nil {
		return fmt.Errorf("%s: what %s (%s) answers is not understood: %w", at.verb, at.text, at.from, err)
	}
	return t.Flush()
}

// outcome is the answer to what closes sockets.
type outcome struct {
	ID          string `json:"id"`
	Connections int    `json:"connections"`
	Cluster     string `json:"cluster"`
	DryRun      bool   `json:"dry_run"`
}

func showOutcome(t *tabwriter.Writer, body []byte, _ bool) error {
	var o outcome
	if err := json.Unmarshal(body, &o); err != nil {
		return err
	}
	told := "only this node is concerned"
	switch {
	case o.DryRun:
		told = "nothing was done"
	case o.Cluster == "told":
		told = "every node knows"
	case o.Cluster != "":
		told = "this node knows; the others hear of it when the store is back"
	}
	_, err := fmt.Fprintf(t, "connections of this node: %d  %s  %s\n", o.Connections, told, printable(o.ID))
	return err
}

func clientCmd(e *env) *cobra.Command {
	group := &cobra.Command{Use: "client", Short: "See clients, disconnect and block them"}
	group.AddCommand(clientListCmd(e), clientShowCmd(e), clientDisconnectCmd(e), clientBlockCmd(e), clientUnblockCmd(e))
	return group
}

func clientPath(name, verb string) string { return "/v1/clients/" + url.PathEscape(name) + verb }

func clientListCmd(e *env) *cobra.Command {
	o, limit, by := operation{lists: true}, 0, ""
	c := o.command(e, &cobra.Command{Use: "list", Short: "List who has the most sockets open on a node", Args: cobra.NoArgs},
		func(c *cobra.Command, at *adminAddress, _ []string) ([]byte, error) {
			return at.do(c.Context(), http.MethodGet, "/v1/clients?"+url.Values{"limit": {strconv.Itoa(limit)}, "sort": {by}}.Encode(), nil, operateTimeout)
		},
		func(t *tabwriter.Writer, body []byte, _ bool) error {
			var page struct {
				Clients []struct {
					Client      string `json:"client"`
					Connections int    `json:"connections"`
				} `json:"clients"`
			}
			if err := json.Unmarshal(body, &page); err != nil {
				return err
			}
			fmt.Fprintln(t, "client\tconnections")
			for _, l := range page.Clients {
				fmt.Fprintf(t, "%s\t%d\n", printable(l.Client), l.Connections)
			}
			return nil
		})
	c.Flags().IntVar(&limit, "limit", 100, "how many, 1 to 1000")
	c.Flags().StringVar(&by, "sort", "connections", "connections")
	return c
}

func clientShowCmd(e *env) *cobra.Command {
	o := operation{}
	return o.command(e, &cobra.Command{Use: "show CLIENT", Short: "Show a client's sockets on a node, and whether it is blocked", Args: cobra.ExactArgs(1)},
		func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
			return at.do(c.Context(), http.MethodGet, clientPath(args[0], ""), nil, operateTimeout)
		},
		func(t *tabwriter.Writer, body []byte, _ bool) error {
			var v struct {
				Client      string     `json:"client"`
				Node        string     `json:"node"`
				Connections int        `json:"connections"`
				Open        []connLine `json:"open"`
				Blocked     *struct {
					Until  time.Time `json:"until"`
					Reason string    `json:"reason"`
				} `json:"blocked"`
			}
			if err := json.Unmarshal(body, &v); err != nil {
				return err
			}
			blocked := "not blocked"
			if v.Blocked != nil {
				blocked = fmt.Sprintf("blocked until %s: %s", v.Blocked.Until.Format(time.RFC3339), printable(v.Blocked.Reason))
			}
			fmt.Fprintf(t, "client %s  node %s  connections %d  %s\n", printable(v.Client), printable(v.Node), v.Connections, blocked)
			if len(v.Open) > 0 {
				printConns(t, v.Open, false)
			}
			return nil
		})
}

// closeFlags are those of what closes sockets.
type closeFlags struct {
	Code   int    `json:"code,omitempty"`
	Over   string `json:"over,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	Reason string `json:"reason,omitempty"`

	over time.Duration
}

func (f *closeFlags) add(c *cobra.Command) {
	c.Flags().IntVar(&f.Code, "code", 4403, "close code; with 4403 unused tickets open nothing any more either")
	c.Flags().DurationVar(&f.over, "over", 0, "close them at random moments within it")
	c.Flags().BoolVar(&f.DryRun, "dry-run", false, "only say how many sockets of the node it would be")
	c.Flags().StringVar(&f.Reason, "reason", "", "why, for the log and for other operators")
}

// done puts the flags into what is sent.
func (f *closeFlags) done() { f.Over = f.over.String() }

func clientDisconnectCmd(e *env) *cobra.Command {
	var o operation
	var f closeFlags
	c := o.command(e, &cobra.Command{
		Use: "disconnect CLIENT", Short: "Close a client's sockets on all nodes", Args: cobra.ExactArgs(1),
		Long: "Disconnect closes a client's sockets on all nodes, and makes its unused tickets useless. It may come again with a new ticket: to keep it out, block it.",
	}, func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
		f.done()
		return at.do(c.Context(), http.MethodPost, clientPath(args[0], ":disconnect"), &f, operateTimeout)
	}, showOutcome)
	f.add(c)
	return c
}

func clientBlockCmd(e *env) *cobra.Command {
	var o operation
	var d time.Duration
	var reason string
	c := o.command(e, &cobra.Command{Use: "block CLIENT --for DURATION --reason TEXT", Short: "Close a client's sockets on all nodes, and give it no tickets for a while", Args: cobra.ExactArgs(1)},
		func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
			return at.do(c.Context(), http.MethodPost, clientPath(args[0], ":block"), map[string]string{"for": d.String(), "reason": reason}, operateTimeout)
		}, showOutcome)
	c.Flags().DurationVar(&d, "for", 0, "how long, such as 1h")
	c.Flags().StringVar(&reason, "reason", "", "why, for the log and for other operators")
	for _, name := range []string{"for", "reason"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	return c
}

func clientUnblockCmd(e *env) *cobra.Command {
	var o operation
	var reason string
	c := o.command(e, &cobra.Command{Use: "unblock CLIENT", Short: "Let a client have tickets again", Args: cobra.ExactArgs(1)},
		func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
			return at.do(c.Context(), http.MethodPost, clientPath(args[0], ":unblock"), map[string]string{"reason": reason}, operateTimeout)
		}, showOutcome)
	c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return c
}

func keyRevokeCmd(e *env) *cobra.Command {
	var o operation
	var reason string
	c := o.command(e, &cobra.Command{
		Use: "revoke ID", Short: "Revoke an API key on all nodes, for ever", Args: cobra.ExactArgs(1),
		Long: "Revoke makes an API key useless, closes the sockets that it asked for, and refuses its unused tickets, on all nodes. Its entry may stay in the keys\n" +
			"file: the store remembers. It cannot be taken back: make a new key.",
	}, func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
		return at.do(c.Context(), http.MethodDelete, "/v1/keys/"+url.PathEscape(args[0])+reasonQuery(reason), nil, operateTimeout)
	}, showOutcome)
	c.Flags().StringVar(&reason, "reason", "", "why, for the log and for other operators")
	return c
}

func reasonQuery(reason string) string {
	if reason == "" {
		return ""
	}
	return "?" + url.Values{"reason": {reason}}.Encode()
}

func ticketCmd(e *env) *cobra.Command {
	group := &cobra.Command{Use: "ticket", Short: "See what became of a ticket, and revoke it"}
	var inspect, revoke operation
	var reason string
	group.AddCommand(inspect.command(e, &cobra.Command{Use: "inspect ID", Short: "Say whether a ticket is unused, spent, expired or revoked", Args: cobra.ExactArgs(1)},
		func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
			return at.do(c.Context(), http.MethodGet, "/v1/tickets/"+url.PathEscape(args[0]), nil, operateTimeout)
		},
		func(t *tabwriter.Writer, body []byte, _ bool) error {
			var v struct{ ID, State string }
			if err := json.Unmarshal(body, &v); err != nil {
				return err
			}
			_, err := fmt.Fprintf(t, "%s  %s\n", printable(v.ID), printable(v.State))
			return err
		}))
	c := revoke.command(e, &cobra.Command{Use: "revoke ID", Short: "Make a ticket useless, and close the socket that it has opened", Args: cobra.ExactArgs(1)},
		func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
			return at.do(c.Context(), http.MethodDelete, "/v1/tickets/"+url.PathEscape(args[0])+reasonQuery(reason), nil, operateTimeout)
		}, showOutcome)
	c.Flags().StringVar(&reason, "reason", "", "why, for the log and for other operators")
	group.AddCommand(c)
	return group
}
