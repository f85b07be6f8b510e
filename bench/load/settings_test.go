package load

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// plainEcho are settings that Check takes.
func plainEcho() Settings {
	return Settings{Verb: Echo, Plain: "ws://127.0.0.1:9000/", Sockets: 10, InFlight: 1, Size: 128, Duration: time.Second, Procs: 1, Lanes: 4}
}

// gateway are settings that Check takes, with tickets.
func gateway() Settings {
	s := plainEcho()
	s.Plain, s.Target, s.Key, s.Stream = "", "http://127.0.0.1:8080", "tgk_key", "echo"
	return s
}

func TestCheckTakes(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"plain":            func(s *Settings) { *s = plainEcho() },
		"gateway":          func(*Settings) {},
		"slash":            func(s *Settings) { s.Target = "http://127.0.0.1:8080/" },
		"no port":          func(s *Settings) { s.Target = "http://127.0.0.1" },
		"capitals":         func(s *Settings) { s.Target = "HTTP://127.0.0.1:8080" },
		"open loop":        func(s *Settings) { s.Rate, s.InFlight = "100..200", 0 },
		"tickets":          func(s *Settings) { s.Verb, s.Sockets = Tickets, 0 },
		"churn":            func(s *Settings) { s.Verb, s.Sockets = Churn, 0 },
		"relay":            func(s *Settings) { s.Verb, s.Size, s.Backend = Relay, RelaySizeMin, "127.0.0.1:9" },
		"smallest message": func(s *Settings) { s.Size = 0 },
		"largest message":  func(s *Settings) { s.Size = 15 << 20 },
		"many processes":   func(s *Settings) { s.Procs, s.Sockets = 1000, 1000 },
		"long":             func(s *Settings) { s.Duration, s.Settle = 30*24*time.Hour, time.Hour },
		"many lanes":       func(s *Settings) { s.Lanes = 10_000 },
		"much under way":   func(s *Settings) { s.Sockets, s.InFlight, s.Size = 1<<20, 1<<12, 1 },
		"not in flight":    func(s *Settings) { s.Rate, s.Sockets, s.InFlight, s.Size = "1", 1<<20, 1<<20, 1<<20 },
		"attackers":        func(s *Settings) { s.Verb, s.Attacks, s.Hostile = Hostile, Attacks, 10_000 },
		"plain query":      func(s *Settings) { *s = plainEcho(); s.Plain = "ws://127.0.0.1:1/?token=a" },
		"many clients":     func(s *Settings) { s.Clients = 9_999_999 },
		"attacks":          func(s *Settings) { s.Attacks = Attacks },
		"sources":          func(s *Settings) { s.Sources = []string{"127.0.0.2"} },
	} {
		s := gateway()
		change(&s)
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, _, err := s.jobs(); err != nil { // what is taken can be done
			t.Errorf("%s: taken by Check, but not done: %v", name, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Settings)
		why    string
	}{
		"no server":       {func(s *Settings) { s.Target = "" }, "want --target"},
		"two servers":     {func(s *Settings) { s.Plain = "ws://127.0.0.1:1/" }, "or --plain"},
		"plain tickets":   {func(s *Settings) { *s = plainEcho(); s.Verb = Tickets }, "has none: want --target"},
		"plain http":      {func(s *Settings) { *s = plainEcho(); s.Plain = "http://127.0.0.1:1/" }, "such as ws://"},
		"plain wss":       {func(s *Settings) { *s = plainEcho(); s.Plain = "wss://127.0.0.1:1/" }, "speaks no TLS"},
		"plain nothing":   {func(s *Settings) { *s = plainEcho(); s.Plain = "127.0.0.1:1" }, "such as ws://"},
		"plain no host":   {func(s *Settings) { *s = plainEcho(); s.Plain = "ws:///x" }, "such as ws://"},
		"plain IPv6":      {func(s *Settings) { *s = plainEcho(); s.Plain = "ws://[::1]:1/" }, "[::1]:1"},
		"target scheme":   {func(s *Settings) { s.Target = "ftp://127.0.0.1" }, "such as http://127.0.0.1:8080"},
		"target address":  {func(s *Settings) { s.Target = "127.0.0.1:8080" }, "such as http://127.0.0.1:8080"},
		"target TLS":      {func(s *Settings) { s.Target = "https://127.0.0.1" }, "speaks no TLS"},
		"target path":     {func(s *Settings) { s.Target = "http://127.0.0.1:8080/v1/tickets" }, "such as http://127.0.0.1:8080"},
		"target IPv6":     {func(s *Settings) { s.Target = "http://[::1]:1" }, "IPv4 alone"},
		"no key":          {func(s *Settings) { s.Key = "" }, "TICKETGATE_KEY"},
		"key with line":   {func(s *Settings) { s.Key = "tgk_a\r\nX-Evil: 1" }, "no API key"},
		"key with space":  {func(s *Settings) { s.Key = "tgk a" }, "no API key"},
		"key with umlaut": {func(s *Settings) { s.Key = "tgk_ä" }, "no API key"},
		"no stream":       {func(s *Settings) { s.Stream = "" }, "--stream"},
		"plain password":  {func(s *Settings) { *s = plainEcho(); s.Plain = "ws://user:hunter2@127.0.0.1:1/?token=hunter2" }, `--plain "ws://***@127.0.0.1:1/?***": bench sends no name`},
		"plain secret":    {func(s *Settings) { *s = plainEcho(); s.Plain = "user:hunter2@127.0.0.1:1/?token=hunter2" }, `--plain "***@127.0.0.1:1/?***": want`},
		"target password": {func(s *Settings) { s.Target = "http://user:hunter2@127.0.0.1:1?hunter2" }, `--target "http://***@127.0.0.1:1?***": want`},
		"too long":        {func(s *Settings) { s.Duration = 30*24*time.Hour + 1 }, "and at most 720h0m0s"},
		"settle back":     {func(s *Settings) { s.Settle = -1 }, "--settle -1ns: want 0 to 1h0m0s"},
		"settle for ever": {func(s *Settings) { s.Settle = time.Hour + 1 }, "--settle 1h0m0.000000001s"},
		"more lanes":      {func(s *Settings) { s.Lanes = 10_001 }, "--lanes 10001: want 1 to 10000"},
		"more sockets":    {func(s *Settings) { s.Sockets = 100_000_001 }, "-c 100000001: want 1 to 100000000"},
		"idle procs":      {func(s *Settings) { s.Procs = 11 }, "--procs 11: more than there are sockets (-c 10)"},
		"under way":       {func(s *Settings) { s.Sockets, s.InFlight, s.Size = 1<<20, 1<<12, 2 }, "-c 1048576, --in-flight 4096 and --size 2: more than 4 GiB"},
		"far too much":    {func(s *Settings) { s.InFlight = math.MaxInt }, "more than 4 GiB would be under way"},
		"relay stream":    {func(s *Settings) { s.Verb, s.Stream, s.Backend = Relay, "", "127.0.0.1:9" }, "relay: want --stream NAME"},
		"no attack":       {func(s *Settings) { s.Verb, s.Hostile = Hostile, 1 }, "--attack: want one at least: there are garbage"},
		"no attackers":    {func(s *Settings) { s.Verb, s.Attacks = Hostile, Attacks }, "--hostile 0: want 1 to 10000"},
		"fewer attackers": {func(s *Settings) { s.Verb, s.Attacks, s.Hostile = Hostile, Attacks, -1 }, "--hostile -1"},
		"more attackers":  {func(s *Settings) { s.Verb, s.Attacks, s.Hostile = Hostile, Attacks, 10_001 }, "--hostile 10001"},
		"no process":      {func(s *Settings) { s.PIDs = []int{1, 0} }, "--server-pid 0: want a process"},
		"no time":         {func(s *Settings) { s.Duration = 0 }, "--duration 0s: want more than 0"},
		"time back":       {func(s *Settings) { s.Duration = -time.Second }, "--duration -1s"},
		"no sockets":      {func(s *Settings) { s.Sockets = 0 }, "-c 0: want 1 to 100000000 sockets"},
		"less than none":  {func(s *Settings) { s.Timeout = -time.Second }, "--timeout -1s"},
		"fewer sockets":   {func(s *Settings) { s.Sockets = -1 }, "-c -1"},
		"fewer procs":     {func(s *Settings) { s.Procs = -1 }, "--procs -1"},
		"more procs":      {func(s *Settings) { s.Procs = 1001 }, "--procs 1001"},
		"no lanes":        {func(s *Settings) { s.Lanes = 0 }, "--lanes 0"},
		"smaller":         {func(s *Settings) { s.Size = -1 }, "--size -1"},
		"larger":          {func(s *Settings) { s.Size = 15<<20 + 1 }, "--size 15728641"},
		"relay size":      {func(s *Settings) { s.Verb, s.Size, s.Backend = Relay, RelaySizeMin-1, "127.0.0.1:9" }, "want at least 34"},
		"relay backend":   {func(s *Settings) { s.Verb = Relay }, "want --backend"},
		"ramp down":       {func(s *Settings) { s.Ramp = -1 }, "--ramp -1"},
		"endless ramp":    {func(s *Settings) { s.Ramp = math.Inf(1) }, "--ramp +Inf"},
		"no number":       {func(s *Settings) { s.Ramp = math.NaN() }, "--ramp NaN"},
		"none in flight":  {func(s *Settings) { s.InFlight = 0 }, "--in-flight 0"},
		"fewer clients":   {func(s *Settings) { s.Clients = -1 }, "--clients -1"},
		"more clients":    {func(s *Settings) { s.Clients = 10_000_000 }, "--clients 10000000"},
		"attack":          {func(s *Settings) { s.Attacks = []string{"garbage", "smurf"} }, "--attack smurf: there are garbage, header-bomb"},
		"source":          {func(s *Settings) { s.Sources = []string{"127.0.0.2", "::1"} }, "--source ::1"},
		"source name":     {func(s *Settings) { s.Sources = []string{"localhost"} }, "--source localhost"},
		"rate":            {func(s *Settings) { s.Rate = "much" }, `"much" is no rate`},
	} {
		s := gateway()
		c.change(&s)
		if err := s.Check(); err == nil {
			t.Errorf("%s: taken", name)
		} else if !strings.Contains(err.Error(), c.why) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %s", name, err, c.why)
		}
	}
}

// All that is wrong is said at once.
func TestCheckSaysAll(t *testing.T) {
	s := gateway()
	s.Lanes, s.Settle, s.Duration = 0, -1, 0
	if err := s.Check(); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("%v", err)
	}
}

func TestHideSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"ws://h:1/path":                "ws://h:1/path",
		"ws://h/?":                     "ws://h/?***",
		"ws://h/x?token=a&b=c#d":       "ws://h/x?***",
		"ws://u:p@h/":                  "ws://***@h/",
		"ws://u:p@q@h/":                "ws://***@h/",
		"u:p@h":                        "***@h",
		"ws://h/?next=ws://u:p@h/?a=b": "ws://h/?***",
		"":                             "",
	} {
		if got := HideSecrets(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	s := plainEcho()
	s.Plain += "?token=a"
	if all := s.shown(); all.Plain != "ws://127.0.0.1:9000/?***" || s.Plain != "ws://127.0.0.1:9000/?token=a" {
		t.Errorf("%s is shown of %s", all.Plain, s.Plain)
	}
}

func TestParseSources(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"127.0.0.2", []string{"127.0.0.2"}},
		{"127.0.0.2, 127.0.0.9", []string{"127.0.0.2", "127.0.0.9"}},
		{"127.0.0.2,127.0.0.4-127.0.0.6", []string{"127.0.0.2", "127.0.0.4", "127.0.0.5", "127.0.0.6"}},
		{"127.0.0.255-127.0.1.0", []string{"127.0.0.255", "127.0.1.0"}},
		{"127.0.0.2-127.0.0.2", []string{"127.0.0.2"}},
		{"255.255.255.254-255.255.255.255", []string{"255.255.255.254", "255.255.255.255"}}, // there is no next one
	} {
		if all, err := ParseSources(c.text); err != nil || !slices.Equal(all, c.want) {
			t.Errorf("%s: %d addresses, %v", c.text, len(all), err)
		}
	}
	if all, err := ParseSources("10.0.0.0-10.0.255.255"); err != nil || len(all) != 1<<16 {
		t.Errorf("65536 addresses: %d, %v", len(all), err)
	}
	for _, c := range []struct{ text, why string }{
		{"", `--source "": want IPv4 addresses`},
		{"localhost", "want IPv4 addresses"},
		{"::1", "want IPv4 addresses"},
		{"127.0.0.2-::1", "want IPv4 addresses"},
		{"127.0.0.2-9", "want IPv4 addresses"},
		{"127.0.0.9-127.0.0.2", "want IPv4 addresses"},
		{"127.0.0.2,", "want IPv4 addresses"},
		{"10.0.0.0-10.1.0.0", "more than 65536 addresses"},
		{"0.0.0.0-255.255.255.255", "more than 65536 addresses"},
	} {
		if all, err := ParseSources(c.text); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q: %d addresses, %v", c.text, len(all), err)
		}
	}
}

// The work is divided so that nothing is left over, and all processes have equally many sources.
func TestJobs(t *testing.T) {
	s := plainEcho()
	s.Sockets, s.Procs, s.Plain = 11, 3, "ws://127.0.0.1/chat?a=b"
	s.Sources, s.Pin = []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}, true
	jobs, server, err := s.jobs()
	if err != nil || server != "127.0.0.1:80" || len(jobs) != 3 {
		t.Fatalf("%d jobs for %s, %v", len(jobs), server, err)
	}
	for i, j := range jobs {
		if want := []int{4, 4, 3}[i]; j.Sockets != want || j.Index != i || j.Share != 3 || j.Thread < 0 {
			t.Errorf("job %d: %+v, want %d sockets", i, j, want)
		}
		if j.Plain != "127.0.0.1:80" || j.Host != "127.0.0.1" || j.Path != "/chat?a=b" || j.API != "" {
			t.Errorf("job %d goes to %s, %s, %s", i, j.Plain, j.Host, j.Path)
		}
		if j.Source[0] != s.Sources[i] || len(j.Source) != 4 { // they cannot be shared out evenly: all have all
			t.Errorf("job %d has sources %q", i, j.Source)
		}
	}
	s.Sources = append(s.Sources, "127.0.0.6", "127.0.0.7")
	for i := range 3 {
		if !slices.Equal(s.sources(i), s.Sources[2*i:2*i+2]) {
			t.Errorf("process %d has sources %q", i, s.sources(i))
		}
	}

	s = gateway()
	s.Verb, s.Backend, s.Size, s.Procs, s.Target = Relay, "127.0.0.1:9", 100, 2, "http://127.0.0.1:8080/"
	if jobs, server, err = s.jobs(); err != nil || len(jobs) != 4 {
		t.Fatalf("relay: %+v, %v", jobs, err)
	}
	for i, j := range jobs[:2] { // one for each client process
		if j.Verb != backend || j.Listen != "127.0.0.1:9" || j.Sockets != 0 || j.Index != i {
			t.Errorf("relay: %+v", j)
		}
	}
	if jobs[2].Verb != Relay || jobs[3].Verb != Relay {
		t.Errorf("relay: %+v, %v", jobs, err)
	}
	if server != "127.0.0.1:8080" || jobs[2].API != server || jobs[2].Key != "tgk_key" || jobs[2].Thread != -1 {
		t.Errorf("relay at %s: %+v", server, jobs[2])
	}

	s = plainEcho()
	s.Verb, s.Attacks, s.Hostile, s.Sources = Hostile, []string{"garbage", "unmasked"}, 7, []string{"127.0.0.2"}
	s.Procs = 2
	if jobs, _, err = s.jobs(); err != nil || len(jobs) != 4 {
		t.Fatalf("hostile: %+v, %v", jobs, err)
	}
	if len(jobs[0].Source) != 1 || len(jobs[1].Source) != 1 {
		t.Errorf("fewer sources than processes: %q, %q", jobs[0].Source, jobs[1].Source)
	}
	for i, kind := range s.Attacks {
		if j := jobs[2+i]; j.Verb != attack || j.Attack != kind || j.Sockets != 7 || j.After != s.Duration/2 {
			t.Errorf("hostile: %+v", j)
		}
	}
}
