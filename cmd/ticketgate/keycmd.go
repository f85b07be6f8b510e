package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"ticketgate/handshake/auth"
	"ticketgate/internal/config"
)

func init() { commands = append(commands, keyCmd) }

func keyCmd(e *env) *cobra.Command {
	group := &cobra.Command{
		Use:   "key",
		Short: "Make API keys and their entries for a keys file, and revoke them",
	}
	group.AddCommand(keyCreateCmd(e), keyHashCmd(e), keyRevokeCmd(e))
	return group
}

// ringFlags say where the hash keys are.
type ringFlags struct{ config, file string }

func (f *ringFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.config, "config", "", "take the hash keys (secrets.key_hash) from this configuration")
	c.Flags().StringVar(&f.file, "hash-key", "", `take them from this file: a line "id:base64 of 32 bytes" each`)
	c.MarkFlagsOneRequired("config", "hash-key")
	c.MarkFlagsMutuallyExclusive("config", "hash-key")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
}

// load returns the hash keys, and the configuration if they are from one.
func (f *ringFlags) load(e *env) (*auth.Ring, *config.Config, error) {
	if f.config == "" {
		text, err := os.ReadFile(f.file)
		if err != nil {
			return nil, nil, fmt.Errorf("read hash keys: %w", err)
		}
		ring, err := auth.ParseRing(string(text))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.file, err)
		}
		return ring, nil, nil
	}
	c, err := config.Load(f.config, e.environ, nil)
	if err != nil {
		return nil, nil, err
	}
	if c.Secrets.KeyHash.Empty() {
		return nil, nil, fmt.Errorf("%s has no secrets.key_hash: no key could be checked against it", f.config)
	}
	ring, err := auth.ParseRing(c.Secrets.KeyHash.Reveal())
	return ring, c, err
}

// newKey is what the flags of "key create" say.
type newKey struct {
	ring              ringFlags
	id, client        string
	product, plan     string
	scopes, addresses []string
	expires, output   string
}

func keyCreateCmd(e *env) *cobra.Command {
	var k newKey
	c := &cobra.Command{
		Use:   "create --client CLIENT --plan PLAN --product PRODUCT {--config FILE | --hash-key FILE}",
		Short: "Make an API key: the key on stdout, its keys file entry on stderr",
		Long: "Create prints the key alone on stdout, once: only its hash is kept. The entry for a keys file goes to stderr.\n" +
			"With --config the plan and product are checked, and the product may be left out where one product has the plan.",
		Example: "  ticketgate key create --client app --plan free --product demo --hash-key key.hash 2>> keys.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return k.create(e) },
	}
	flags := c.Flags()
	flags.StringVar(&k.client, "client", "", "who the key speaks for")
	flags.StringVar(&k.plan, "plan", "", "whose limits apply")
	flags.StringVar(&k.product, "product", "", "which streams it may open")
	flags.StringVar(&k.id, "id", "", "public id of the key: 1 to 32 of a-z, 0-9 and - (default: random)")
	flags.StringArrayVar(&k.scopes, "scope", nil, "delegate, authorize or stream:NAME; repeat for several")
	flags.StringArrayVar(&k.addresses, "ip", nil, "address range it may be used from, such as 10.0.0.0/8; repeat for several")
	flags.StringVar(&k.expires, "expires", "", "when it ends, such as 2027-01-31T00:00:00Z")
	flags.StringVarP(&k.output, "output", "o", "text", "text, or json for one object {key, entry} on stdout")
	k.ring.add(c)
	for _, name := range []string{"client", "plan"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	return c
}

func (k *newKey) create(e *env) error {
	if k.output != "text" && k.output != "json" {
		return usagef("--output %q: want text or json", k.output)
	}
	rec, err := k.record()
	if err != nil {
		return err
	}
	ring, c, err := k.ring.load(e)
	if err != nil {
		return err
	}
	if c != nil {
		if err := fit(&rec, c); err != nil {
			return err
		}
	}
	text, made, err := auth.Generate(rand.Reader, rec.ID, ring)
	if err != nil {
		return err
	}
	rec.Hash = made.Hash
	if _, problems := auth.NewKeys([]auth.Record{rec}, ring); problems != nil {
		return usagef("--%s: %s", problems[0].Field, problems[0].Message)
	}
	return k.print(e, text, rec)
}

// record is the entry as the flags tell it, still without hash.
func (k *newKey) record() (rec auth.Record, err error) {
	rec = auth.Record{ID: k.id, Client: k.client, Product: k.product, Plan: k.plan, Scopes: k.scopes}
	if rec.ID == "" {
		var b [6]byte
		_, _ = rand.Read(b[:]) // never fails, says its documentation
		rec.ID = "k" + hex.EncodeToString(b[:])
	}
	for _, text := range k.addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return rec, usagef("--ip %q: want an address range such as 10.0.0.0/8", text)
		}
		rec.IP = append(rec.IP, p)
	}
	if k.expires != "" {
		t, err := time.Parse(time.RFC3339, k.expires)
		if err != nil {
			return rec, usagef("--expires %q: want a time such as 2027-01-31T00:00:00Z", k.expires)
		}
		rec.Expires = &t
	}
	return rec, nil
}

// fit checks that rec can be used under c, and fills in a product that follows from the plan.
func fit(rec *auth.Record, c *config.Config) error {
	var having []string
	for name, p := range c.Products {
		if slices.Contains(p.Plans, rec.Plan) {
			having = append(having, name)
		}
	}
	slices.Sort(having)
	if rec.Product == "" && len(having) == 1 {
		rec.Product = having[0]
	}
	switch {
	case len(having) == 0:
		return fmt.Errorf("no product of the configuration has the plan %q", rec.Plan)
	case rec.Product == "":
		return usagef("--product is missing: %s have the plan %q", strings.Join(having, ", "), rec.Plan)
	case !slices.Contains(having, rec.Product):
		return fmt.Errorf("the configuration has no product %q with the plan %q; there is %s", rec.Product, rec.Plan,
			strings.Join(having, ", "))
	}
	if slices.ContainsFunc(c.Keys, func(k auth.Record) bool { return k.ID == rec.ID }) {
		return fmt.Errorf("there is a key with the id %q already; choose another --id", rec.ID)
	}
	return nil
}

// entryText is a record as it stands in a keys file, in both outputs.
type entryText struct {
	ID      string   `yaml:"id" json:"id"`
	Hash    string   `yaml:"hash" json:"hash"`
	Client  string   `yaml:"client" json:"client"`
	Product string   `yaml:"product" json:"product"`
	Plan    string   `yaml:"plan" json:"plan"`
	Scopes  []string `yaml:"scopes,flow,omitempty" json:"scopes,omitempty"`
	IP      []string `yaml:"ip,flow,omitempty" json:"ip,omitempty"`
	Expires string   `yaml:"expires,omitempty" json:"expires,omitempty"`
}

func (k *newKey) print(e *env, text string, rec auth.Record) error {
	entry := entryText{
		ID: rec.ID, Hash: rec.Hash, Client: rec.Client, Product: rec.Product, Plan: rec.Plan, Scopes: rec.Scopes,
		IP: k.addresses, Expires: k.expires,
	}
	if k.output == "json" {
		return json.NewEncoder(e.stdout).Encode(struct {
			Key   string    `json:"key"`
			Entry entryText `json:"entry"`
		}{text, entry})
	}
	list, err := yaml.Marshal([]entryText{entry})
	if err != nil {
		return fmt.Errorf("write entry: %w", err)
	}
	if _, err := e.stderr.Write(list); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, text)
	return err
}

func keyHashCmd(e *env) *cobra.Command {
	var ring ringFlags
	c := &cobra.Command{
		Use:     "hash {--config FILE | --hash-key FILE}",
		Short:   "Read an API key from stdin and print the hash for its entry",
		Example: "  ticketgate key hash --hash-key key.hash < my.key",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			keys, _, err := ring.load(e)
			if err != nil {
				return err
			}
			return hashKey(c.Context(), e, keys)
		},
	}
	ring.add(c)
	return c
}

// lineMax is more than the longest key.
const lineMax = 256

// hashKey reads a key from the first line of stdin.
func hashKey(ctx context.Context, e *env, ring *auth.Ring) error {
	line := make(chan string, 1)
	failed := make(chan error, 1)
	go func() { // a read from a terminal cannot be called off: it ends with the process
		s, err := bufio.NewReader(io.LimitReader(e.stdin, lineMax)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			failed <- fmt.Errorf("read key from stdin: %w", err)
			return
		}
		line <- s
	}()
	select {
	case <-ctx.Done():
		return errInterrupted
	case err := <-failed:
		return err
	case s := <-line:
		hash, err := ring.Hash(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("stdin: %w", err)
		}
		_, err = fmt.Fprintln(e.stdout, hash)
		return err
	}
}
