// Package config reads the one YAML file that says what a gateway is, with the environment and flags over it. It reports
// every mistake at once, each with its place, and hands out a Config that is never written to again.
//
// The tags of the types below are the rules: default, range (both ends included), oneof (the values there are), later (what
// is known but not built yet: values on a field, keys on a blank field), form (a named check of forms.go) and keys (how the
// keys of a map look).
package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"ticketgate/handshake/auth"
	"ticketgate/internal/unit"
	"ticketgate/limiter"
)

// Config is a whole, checked configuration. Nobody writes to it after Load, so any goroutine may read it.
type Config struct {
	Version       int                `yaml:"version"`
	Node          Node               `yaml:"node"`
	Listen        Listen             `yaml:"listen"`
	Store         Store              `yaml:"store"`
	Secrets       Secrets            `yaml:"secrets"`
	Cluster       Cluster            `yaml:"cluster"`
	WebSocket     WebSocket          `yaml:"websocket"`
	Memory        Memory             `yaml:"memory"`
	Tickets       Tickets            `yaml:"tickets"`
	Auth          Auth               `yaml:"auth"`
	Products      map[string]Product `yaml:"products" keys:"name"`
	Plans         map[string]Plan    `yaml:"plans" keys:"name"`
	LimitDefaults limiter.Defaults   `yaml:"limit_defaults"`
	Streams       map[string]Stream  `yaml:"streams" keys:"name"`
	Backends      map[string]Backend `yaml:"backends" keys:"name"`
	Feeds         map[string]Feed    `yaml:"feeds" keys:"name"`
	Drain         Drain              `yaml:"drain"`
	Log           Log                `yaml:"log"`
	Telemetry     Telemetry          `yaml:"telemetry"`
	TLS           map[string]TLS     `yaml:"tls" keys:"name"`
	_             struct{}           `later:"guards ip audit"`

	// Keys are the entries of all files in auth.keys.source, in order. auth.NewKeys takes them without a problem under the
	// ring in Secrets.KeyHash.
	Keys []auth.Record `yaml:"-"`

	origins map[string]string // by path, of what is not a default
}

// Node says who this process is.
type Node struct {
	Name     string   `yaml:"name" form:"node"`                         // the host's name if the file has none
	StateDir string   `yaml:"state_dir"`                                // where the lock file is that proves a former process gone; empty: nowhere
	IOUring  string   `yaml:"io_uring" default:"auto" oneof:"auto off"` // many sockets a system call, where the kernel lets us
	_        struct{} `later:"region"`
}

// Listen is where the gateway listens.
type Listen struct {
	Handshake Handshake `yaml:"handshake"`
	Gate      Gate      `yaml:"gate"`
	Admin     Admin     `yaml:"admin"`
}

// Handshake is the HTTP listener that issues tickets.
type Handshake struct {
	Address string   `yaml:"address" default:"127.0.0.1:8080" form:"address"`
	TLS     string   `yaml:"tls" default:"none" form:"tls"`
	CORS    CORS     `yaml:"cors"`
	_       struct{} `later:"per_address"`
}

// CORS says which pages may read the answers of the handshake API.
type CORS struct {
	Origins []string `yaml:"origins" form:"origin"`
}

// Gate is the listener that tickets are redeemed at.
type Gate struct {
	Address   Addresses `yaml:"address" default:"127.0.0.1:8081" form:"address"`
	PublicURL string    `yaml:"public_url" form:"public-url"`                 // what ticket URLs begin with; ws:// or wss://, no path
	TLS       string    `yaml:"tls" default:"none"`                           // an entry of Config.TLS
	Origins   []string  `yaml:"origins" default:"none" form:"origin-or-none"` // none: clients that send no Origin
	Deadlines Deadlines `yaml:"deadlines"`
	Admit     Admit     `yaml:"admit"`

	PerAddress    PerAddress    `yaml:"per_address"`
	ProxyProtocol ProxyProtocol `yaml:"proxy_protocol"`
}

// ProxyProtocol says whose word is taken for where a client is. Nobody's if From is empty.
type ProxyProtocol struct {
	From     []string `yaml:"from" form:"proxy-peer"`
	Required bool     `yaml:"required" default:"true"` // who is in From has to send a header, and who is not is refused
}

// Deadlines are absolute, from accept.
type Deadlines struct {
	TLS   time.Duration `yaml:"tls" default:"5s" range:"100ms,1m"`  // to the end of the TLS handshake
	Head  time.Duration `yaml:"head" default:"5s" range:"100ms,1m"` // with TLS: from there
	Admit time.Duration `yaml:"admit" default:"10s" range:"100ms,2m"`
}

// Admit is how much the gate takes on. Beyond it newcomers get 503.
type Admit struct {
	Connections int          `yaml:"connections" default:"1000000" range:"1,10000000"`
	Rate        limiter.Rate `yaml:"rate" default:"20000/1second"` // sockets admitted
}

// PerAddress is what one address may do before its tickets are known: an IPv4 address, or an IPv6 /64.
type PerAddress struct {
	Rate            limiter.Rate   `yaml:"rate" default:"20/1second"` // connections
	Burst           int            `yaml:"burst" default:"40" range:"1,1000000"`
	Unauthenticated int            `yaml:"unauthenticated" default:"64" range:"1,1000000"` // sockets that are not admitted yet, at once
	Exempt          []netip.Prefix `yaml:"exempt"`
}

// Admin is the listener for metrics, health, status and operators.
type Admin struct {
	Address string `yaml:"address" default:"127.0.0.1:8082" form:"address"`
	Socket  string `yaml:"socket" form:"socket-path"` // a unix socket beside it, whose peers are known by their user
	Token   Secret `yaml:"token"`                     // demanded from everyone if the address is not loopback
}

// Store is where tickets and slots are.
type Store struct {
	Kind      string        `yaml:"kind" default:"memory" oneof:"memory redis" later:"local"`
	URL       Secret        `yaml:"url" form:"redis-url"`           // of one server; it may hold a password
	Addresses []string      `yaml:"addresses" form:"redis-address"` // of sentinels, or of nodes of a Redis Cluster; instead of URL
	Sentinel  Sentinel      `yaml:"sentinel"`
	User      string        `yaml:"user"` // with Addresses
	Password  Secret        `yaml:"password"`
	TLS       StoreTLS      `yaml:"tls"`
	Prefix    string        `yaml:"prefix" default:"tg:" form:"prefix"`
	Timeout   time.Duration `yaml:"timeout" default:"200ms" range:"10ms,10s"`
	Replicas  Replicas      `yaml:"replicas" default:"auto"` // that must have a renewal before it counts; auto: see RenewalReplicas
}

// Sentinel is what Store.Addresses are asked, if it has a Master; else they are nodes of a Redis Cluster.
type Sentinel struct {
	Master   string `yaml:"master"` // what the sentinels call the primary
	User     string `yaml:"user"`
	Password Secret `yaml:"password"`
}

// Secrets are the key rings, a line "id:base64 of 32 bytes" each. Empty: made at start, which only one node can do.
type Secrets struct {
	TicketKeys Secret `yaml:"ticket_keys" form:"ticket-keys"` // ticket.ParseKeyRing takes it
	KeyHash    Secret `yaml:"key_hash" form:"key-hash"`       // auth.ParseRing takes it
}

// Cluster is how nodes know that they live.
type Cluster struct {
	Heartbeat time.Duration `yaml:"heartbeat" default:"10s" range:"100ms,1m"`
	Lease     time.Duration `yaml:"lease" default:"45s" range:"5s,10m"`
	Mode      string        `yaml:"mode" default:"strict" oneof:"strict available"` // what becomes of sockets without a lease: closed, or kept
}

// WebSocket is what one socket may do and hold.
type WebSocket struct {
	MaxMessage   unit.Size     `yaml:"max_message" default:"64KiB" range:"125B,64MiB"`
	MaxFragments int           `yaml:"max_fragments" default:"128" range:"1,65536"`
	Assembly     time.Duration `yaml:"assembly" default:"10s" range:"100ms,10m"` // from a message's first fragment to its last
	Ping         time.Duration `yaml:"ping" default:"25s" range:"100ms,1h"`
	PongWait     time.Duration `yaml:"pong_wait" default:"10s" range:"100ms,10m"`
	Idle         unit.Timeout  `yaml:"idle" default:"off" range:"100ms,24h"`
	Queue        unit.Size     `yaml:"queue" default:"256KiB" range:"4KiB,64MiB"`   // unsent bytes before 4440
	Control      limiter.Rate  `yaml:"control" default:"10/1second"`                // pings, pongs and closes a client may send
	Compression  string        `yaml:"compression" default:"off" oneof:"off on"`    // permessage-deflate
	InflateRatio int           `yaml:"inflate_ratio" default:"256" range:"10,1032"` // beyond deflate.RatioFrom
}

// Memory bounds the process.
type Memory struct {
	Limit    string       `yaml:"limit" default:"auto" form:"memory-limit"` // MemoryLimit reads it
	Outbound unit.Share   `yaml:"outbound" default:"25%"`                   // of Limit: unsent bytes of all sockets
	RefuseAt unit.Percent `yaml:"refuse_at" default:"85%" range:"50%,99%"`  // of Limit: newcomers get 503
	CutAt    unit.Percent `yaml:"cut_at" default:"95%" range:"50%,99%"`     // of Limit: the largest queues are cut, 1013
}

// Tickets is the life of a ticket.
type Tickets struct {
	TTL         time.Duration `yaml:"ttl" default:"30s" range:"5s,120s"`
	SessionMax  time.Duration `yaml:"session_max" default:"12h" range:"1s,168h"`
	BindIP      bool          `yaml:"bind_ip" default:"false"` // only the address that asked may redeem
	Authority   string        `yaml:"authority" default:"store" oneof:"store node"`
	Outstanding int           `yaml:"outstanding" default:"20" range:"1,1000"` // unused tickets a client may have
}

// Auth is who may ask for tickets.
type Auth struct {
	Keys KeySource `yaml:"keys"`
	_    struct{}  `later:"jwt"`
}

// KeySource is where API keys are listed.
type KeySource struct {
	Source []string `yaml:"source" form:"key-source"` // paths, from the configuration's own folder
}

// Product is what a credential may open.
type Product struct {
	Streams []string `yaml:"streams"`
	Plans   []string `yaml:"plans"`
}

// Plan is a set of limits.
type Plan struct {
	Limits map[string]limiter.Options `yaml:"limits" keys:"limit"`

	Compiled *limiter.Plan `yaml:"-"` // never nil in a loaded Config
}

// Stream is what a ticket can be for. It has a backend or a feed.
type Stream struct {
	Backend       string             `yaml:"backend"`
	Feed          string             `yaml:"feed"`
	Params        map[string]Pattern `yaml:"params" keys:"param"`
	ClientMaySend bool               `yaml:"client_may_send"` // unless set: true with a backend, false with a feed
	Format        string             `yaml:"format" default:"raw" oneof:"raw" later:"envelope"`
	SlowConsumer  SlowConsumer       `yaml:"slow_consumer"`
	_             struct{}           `later:"guards forward resume http publish"`
}

// SlowConsumer is what becomes of a feed's readers that do not keep up.
type SlowConsumer struct {
	Queue unit.Size `yaml:"queue" range:"4KiB,64MiB"` // bytes of messages that may wait for one; 0: as websocket.queue
	Then  string    `yaml:"then" default:"close" form:"slow-then" oneof:"close drop-oldest latest-only"`
}

// Backend is where a stream's messages go. It has targets, or a kind that is built in.
type Backend struct {
	Kind    string   `yaml:"kind" oneof:"echo"`
	Targets []string `yaml:"targets" form:"target"`
	Health  Health   `yaml:"health"`
	_       struct{} `later:"balance source_addresses tls"`
}

// Health is when a target counts as down.
type Health struct {
	DialTimeout time.Duration `yaml:"dial_timeout" default:"3s" range:"10ms,1m"`
	_           struct{}      `later:"path every unhealthy_after"`
}

// Feed is where a topic's messages come from.
type Feed struct {
	Kind  string        `yaml:"kind" oneof:"clock" later:"nats kafka redis redis-stream"`
	Every time.Duration `yaml:"every" default:"1s" range:"10ms,1h"`
	Pad   unit.Size     `yaml:"pad" default:"0B" range:"0B,64KiB"` // bytes that each message has beside the time
	_     struct{}      `later:"url subject jetstream brokers topic key start channel"`
}

// Drain is how sockets are sent away.
type Drain struct {
	Over  time.Duration `yaml:"over" default:"2m" range:"0s,1h"` // closes are spread over it
	Grace time.Duration `yaml:"grace" default:"10s" range:"0s,10m"`
}

// Log is where and how much the gateway talks.
type Log struct {
	Format string `yaml:"format" default:"auto" oneof:"auto text json"`
	Level  string `yaml:"level" default:"info" oneof:"debug info warn error"`
}

// Telemetry is what can be measured from outside.
type Telemetry struct {
	Metrics bool     `yaml:"metrics" default:"true"`
	_       struct{} `later:"traces"`
}

// Default returns a Config with every default and nothing to open: no stream, no plan, no key, no public URL.
func Default() *Config {
	c := new(Config)
	setDefaults(reflect.ValueOf(c).Elem())
	c.Version = 1
	return c
}

// Origin says where the value at path ("tickets.ttl") is from: "default", "FILE:LINE:COLUMN", "environment variable NAME"
// or "flag PATH".
func (c *Config) Origin(path string) string {
	if from, ok := c.origins[path]; ok {
		return from
	}
	return "default"
}

// setDefaults fills v, a struct, and the structs in it from their default tags.
func setDefaults(v reflect.Value) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() || field.Tag.Get("yaml") == "-" {
			continue
		}
		if text, ok := field.Tag.Lookup("default"); ok {
			mustSet(v.Field(i), field, text)
		} else if field.Type.Kind() == reflect.Struct && !isScalar(field.Type) {
			setDefaults(v.Field(i))
		}
	}
}

func mustSet(v reflect.Value, field reflect.StructField, text string) {
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		v = v.Index(0)
	}
	if err := setScalar(v, text); err != nil {
		panic(fmt.Sprintf("config: default of %s: %v", field.Name, err))
	}
}
