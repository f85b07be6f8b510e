package handshake_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"ticketgate/handshake"
)

// asks are bodies of POST /v1/tickets; problem is part of what is said of them, "" if they pass.
var asks = []struct{ body, problem string }{
	{`{"stream":"chat"}`, ""},
	{" \t\r\n{ \"stream\" : \"chat\" } \n", ""},
	{`{"stream":"\u0063hat","client":"\ud83d\ude00 \"\\\/\b"}`, "client: want"},
	{`{"stream":"\u0063hat","client":"\ud83d\ude00 \"\\\/"}`, ""},
	{`{"stream":"s","params":{"a":"","b":"x"},"protocols":["p1","p.2"],"origin":"https://a.example:8443"}`, ""},
	{`{"stream":"s","params":{},"protocols":[]}`, ""},
	{`{"stream":"s","client":"用户"}`, ""},
	{``, "body: want an object"},
	{`null`, "body: want an object"},
	{`[]`, "body: want an object"},
	{`"stream"`, "body: want an object"},
	{"\ufeff{\"stream\":\"s\"}", "body: want an object"},
	{`{}`, "stream: missing"},
	{`{"client":"c"}`, "stream: missing"},
	{`{"stream":""}`, "stream: want"},
	{`{"stream":null}`, "stream: want a string"},
	{`{"stream":1}`, "stream: want a string"},
	{`{"stream":true}`, "stream: want a string"},
	{`{"stream":["s"]}`, "stream: want a string"},
	{`{"stream":{"s":"s"}}`, "stream: want a string"},
	{`{"stream":"s"}{}`, "body: more follows"},
	{`{"stream":"s"},`, "body: more follows"},
	{`{"stream":"s"}x`, "body: more follows"},
	{"{\"stream\":\"s\"}\x00", "body: more follows"},
	{`{"stream":"s",}`, "body: want a string"},
	{`{,"stream":"s"}`, "body: want a string"},
	{`{"stream":"s" "client":"c"}`, "body: not JSON"},
	{`{"stream" "s"}`, "body: not JSON"},
	{`{"stream":"s"`, "body: not JSON"},
	{`{"stream":"s`, "stream: not JSON"},
	{`{"stream":"s\"}`, "stream: not JSON"},
	{`{stream:"s"}`, "body: want a string"},
	{`{'stream':'s'}`, "body: want a string"},
	{`{"stream":"s"/**/}`, "body: not JSON"},
	{`{"stream":"a","stream":"b"}`, "body: a member stands twice"},
	{`{"stream":"a","\u0073tream":"b"}`, "body: a member stands twice"},
	{`{"STREAM":"a"}`, "body: a member that is none"},
	{`{"stream":"s","Client":"c"}`, "body: a member that is none"},
	{`{"stream":"s","zq9":"c"}`, "body: a member that is none"},
	{`{"stream":"s","":"c"}`, "body: a member that is none"},
	{"{\"stream\":\"\xff\"}", "stream: not UTF-8"},
	{"{\"stream\":\"\xc0\xaf\"}", "stream: not UTF-8"},
	{"{\"stream\":\"\xed\xa0\x80\"}", "stream: not UTF-8"},
	{"{\"stream\":\"a\x01\"}", "stream: not JSON"},
	{"{\"stream\":\"a\n\"}", "stream: not JSON"},
	{`{"stream":"a\u0000"}`, "stream: want"},
	{`{"stream":"a\u0085"}`, "stream: want"},
	{`{"stream":"a\u2028"}`, "stream: want"},
	{`{"stream":"\ud800"}`, "stream: not JSON"},
	{`{"stream":"\udc00"}`, "stream: not JSON"},
	{`{"stream":"\ud800\ud800"}`, "stream: not JSON"},
	{`{"stream":"\ud800x"}`, "stream: not JSON"},
	{`{"stream":"\u12g4"}`, "stream: not JSON"},
	{`{"stream":"\x41"}`, "stream: not JSON"},
	{`{"stream":"\`, "stream: not JSON"},
	{`{"stream":"` + strings.Repeat("a", 128) + `"}`, ""},
	{`{"stream":"` + strings.Repeat("a", 129) + `"}`, "stream: too long"},
	{`{"stream":"s","client":""}`, "client: want"},
	{`{"stream":"s","resume":1}`, "resume: want a string"},
	{`{"stream":"s","params":[]}`, "params: want an object"},
	{`{"stream":"s","params":{"a":1}}`, "params: want a string"},
	{`{"stream":"s","params":{"a":{"b":"c"}}}`, "params: want a string"},
	{`{"stream":"s","params":{"a":"b","a":"c"}}`, "params: a member stands twice"},
	{`{"stream":"s","params":{"":"b"}}`, "params: at most"},
	{`{"stream":"s","params":{"a":"` + strings.Repeat("v", 513) + `"}}`, "params: too long"},
	{`{"stream":"s","params":{"a` + manyMembers(17) + `}}`, "params: at most"},
	{`{"stream":"s","params":{"a":"b"`, "params: not JSON"},
	{`{"stream":"s","protocols":"p"}`, "protocols: want an array"},
	{`{"stream":"s","protocols":[1]}`, "protocols: want a string"},
	{`{"stream":"s","protocols":[["p"]]}`, "protocols: want a string"},
	{`{"stream":"s","protocols":["p",]}`, "protocols: want a string"},
	{`{"stream":"s","protocols":["p" "q"]}`, "protocols: not JSON"},
	{`{"stream":"s","protocols":["p"`, "protocols: not JSON"},
	{`{"stream":"s","protocols":["p","p"]}`, "protocols: one stands twice"},
	{`{"stream":"s","protocols":["a b"]}`, "protocols: want tokens"},
	{`{"stream":"s","protocols":["a,b"]}`, "protocols: want tokens"},
	{`{"stream":"s","protocols":[""]}`, "protocols: want"},
	{`{"stream":"s","protocols":["ü"]}`, "protocols: want tokens"},
	{`{"stream":"s","protocols":["tgs_AAAA"]}`, "protocols: tgs_"},
	{`{"stream":"s","protocols":["ticketgate.v1"]}`, "protocols: tgs_ and ticketgate."},
	{`{"stream":"s","protocols":["1","2","3","4","5","6","7","8","9","10"]}`, ""},
	{`{"stream":"s","protocols":["1","2","3","4","5","6","7","8","9","10","11"]}`, "protocols: at most 10"},
	{`{"stream":"s","origin":"http://localhost:3000"}`, ""},
	{`{"stream":"s","origin":"https://[::1]"}`, ""},
	{`{"stream":"s","origin":"null"}`, "origin: want"},
	{`{"stream":"s","origin":"https://a/"}`, "origin: want"},
	{`{"stream":"s","origin":"https://A"}`, "origin: want"},
	{`{"stream":"s","origin":"https://a:443"}`, "origin: want"},
	{`{"stream":"s","origin":"http://a:80"}`, "origin: want"},
	{`{"stream":"s","origin":"https://a:"}`, "origin: want"},
	{`{"stream":"s","origin":"https://u@a"}`, "origin: want"},
	{`{"stream":"s","origin":"https://a?b"}`, "origin: want"},
	{`{"stream":"s","origin":"https://ä"}`, "origin: want"},
	{`{"stream":"s","origin":"//a"}`, "origin: want"},
	{`{"stream":"s","origin":"a"}`, "origin: want"},
	{strings.Repeat("[", 10_000), "body: want an object"},
	{strings.Repeat(`{"stream":`, 1_000), "stream: want a string"},
	{`{"stream":"s","params":{"a":` + strings.Repeat(`{"a":`, 1_000), "params: want a string"},
}

// manyMembers continues a member name that begins with a.
func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(`,"a`)
		}
		b.WriteString(strings.Repeat("x", i) + `":"v"`)
	}
	return b.String()
}

func TestTicketRequest(t *testing.T) {
	for _, a := range asks {
		_, _, _, _, _, problem := handshake.ParseAsk([]byte(a.body))
		if a.problem == "" && problem != "" || !strings.HasPrefix(problem, a.problem) {
			t.Errorf("%.80s: %q, want %q", a.body, problem, a.problem)
		}
	}
}

// A problem is one of few texts, and what is accepted means the same to encoding/json.
func FuzzTicketRequest(f *testing.F) {
	for _, a := range asks {
		f.Add([]byte(a.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		stream, client, origin, params, protocols, problem := handshake.ParseAsk(body)
		if problem != "" {
			if member, _, _ := strings.Cut(problem, ":"); !slices.Contains([]string{"body", "stream", "client", "origin", "resume", "params", "protocols"}, member) {
				t.Fatalf("problem %q", problem)
			}
			return
		}
		var theirs struct {
			Stream, Client, Origin, Resume string
			Params                         map[string]string
			Protocols                      []string
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&theirs); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", body, err)
		}
		ours := map[string]string{}
		for i := 0; i < len(params); i += 2 {
			ours[params[i]] = params[i+1]
		}
		if theirs.Stream != stream || theirs.Client != client || theirs.Origin != origin || !maps.Equal(theirs.Params, ours) ||
			!slices.Equal(theirs.Protocols, protocols) {
			t.Fatalf("%q: encoding/json reads %+v", body, theirs)
		}
	})
}
