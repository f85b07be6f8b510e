package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// connLine is a connection as the admin API tells of it.
type connLine struct {
	ID     string    `json:"id"`
	Client string    `json:"client"`
	Key    string    `json:"key"`
	Stream string    `json:"stream"`
	Plan   string    `json:"plan"`
	IP     string    `json:"ip"`
	Opened time.Time `json:"opened"`
	Age    int64     `json:"age_seconds"`
	Idle   int64     `json:"idle_seconds"`
	Queue  int64     `json:"queue_bytes"`
}

func printConns(t *tabwriter.Writer, list []connLine, wide bool) {
	head := "connection\tclient\tstream\tplan\tage\tqueue"
	if wide {
		head += "\tkey\tip\tidle\topened"
	}
	fmt.Fprintln(t, head)
	for i := range list {
		l := &list[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%v\t%s", printable(l.ID), printable(l.Client), printable(l.Stream), printable(l.Plan), time.Duration(l.Age)*time.Second, bytesText(l.Queue))
		if wide {
			fmt.Fprintf(t, "\t%s\t%s\t%v\t%s", printable(l.Key), printable(l.IP), time.Duration(l.Idle)*time.Second, l.Opened.Format(time.RFC3339))
		}
		fmt.Fprintln(t)
	}
}

func connCmd(e *env) *cobra.Command {
	group := &cobra.Command{Use: "conn", Short: "See open sockets, and close them"}
	group.AddCommand(connListCmd(e), connShowCmd(e), connCloseCmd(e))
	return group
}

// selectFlags say which sockets are meant.
type selectFlags struct {
	Client string `json:"client,omitempty"`
	Key    string `json:"key,omitempty"`
	Stream string `json:"stream,omitempty"`
	Plan   string `json:"plan,omitempty"`
	Ticket string `json:"ticket,omitempty"`
	Conn   string `json:"connection,omitempty"`
}

func (f *selectFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.Client, "client", "", "of this client")
	c.Flags().StringVar(&f.Key, "key", "", "asked for with the API key of this id")
	c.Flags().StringVar(&f.Stream, "stream", "", "of this stream")
	c.Flags().StringVar(&f.Plan, "plan", "", "of this plan")
	c.Flags().StringVar(&f.Ticket, "ticket", "", "opened with the ticket of this id")
}

func connListCmd(e *env) *cobra.Command {
	o := operation{lists: true}
	var f selectFlags
	var ip, cursor string
	var age time.Duration
	var queue, limit int
	c := o.command(e, &cobra.Command{
		Use: "list", Short: "List the open sockets of a node", Args: cobra.NoArgs,
		Long: "List shows open sockets of a node, a page at a time: behind a page that is not the last stands how to go on.",
	}, func(c *cobra.Command, at *adminAddress, _ []string) ([]byte, error) {
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		for name, v := range map[string]string{"client": f.Client, "key": f.Key, "stream": f.Stream, "plan": f.Plan, "ticket": f.Ticket, "ip": ip, "cursor": cursor} {
			if v != "" {
				q.Set(name, v)
			}
		}
		if age > 0 {
			q.Set("age", age.String())
		}
		if queue > 0 {
			q.Set("queue", strconv.Itoa(queue))
		}
		return at.do(c.Context(), http.MethodGet, "/v1/connections?"+q.Encode(), nil, operateTimeout)
	}, func(t *tabwriter.Writer, body []byte, wide bool) error {
		var page struct {
			Connections []connLine `json:"connections"`
			Next        string     `json:"next"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return err
		}
		printConns(t, page.Connections, wide)
		if page.Next != "" {
			fmt.Fprintf(t, "there are more: --cursor %s\n", printable(page.Next))
		}
		return nil
	})
	f.add(c)
	c.Flags().StringVar(&ip, "ip", "", "from this address or range")
	c.Flags().DurationVar(&age, "age", 0, "open for at least so long")
	c.Flags().IntVar(&queue, "queue", 0, "for which at least so many bytes wait")
	c.Flags().IntVar(&limit, "limit", 100, "how many, 1 to 1000")
	c.Flags().StringVar(&cursor, "cursor", "", "where the page before ended")
	return c
}

func connShowCmd(e *env) *cobra.Command {
	var o operation
	return o.command(e, &cobra.Command{Use: "show ID", Short: "Show an open socket of a node", Args: cobra.ExactArgs(1)},
		func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
			return at.do(c.Context(), http.MethodGet, "/v1/connections/"+url.PathEscape(args[0]), nil, operateTimeout)
		},
		func(t *tabwriter.Writer, body []byte, _ bool) error {
			var l connLine
			if err := json.Unmarshal(body, &l); err != nil {
				return err
			}
			printConns(t, []connLine{l}, true)
			return nil
		})
}

func connCloseCmd(e *env) *cobra.Command {
	var o operation
	var sel selectFlags
	var f closeFlags
	c := o.command(e, &cobra.Command{
		Use: "close {ID | --client C | --key K | --stream S | --plan P | --ticket T}", Short: "Close sockets on all nodes", Args: cobra.MaximumNArgs(1),
		Long: "Close closes the socket with this id, or all that all of the flags mean, on all nodes. With code 4403 it makes unused tickets useless that the flags\n" +
			"mean. Clients may come again with new tickets.",
	}, func(c *cobra.Command, at *adminAddress, args []string) ([]byte, error) {
		f.done()
		if len(args) == 1 {
			sel.Conn = args[0]
		}
		if sel == (selectFlags{}) {
			return nil, usagef("conn close: say which: ID, --client, --key, --stream, --plan or --ticket")
		}
		return at.do(c.Context(), http.MethodPost, "/v1/connections:disconnect", struct {
			Selector selectFlags `json:"selector"`
			*closeFlags
		}{sel, &f}, operateTimeout)
	}, showOutcome)
	sel.add(c)
	f.add(c)
	return c
}
