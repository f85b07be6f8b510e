package deflate_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ticketgate/engine/deflate"
)

const accepted = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

// offers are lines of Sec-WebSocket-Extensions and what they get: an answer, "" for none, or "400".
var offers = []struct {
	name, lines, want string // lines are parted by '|'
}{
	{"none", "", ""},
	{"Chromium's", "permessage-deflate; client_max_window_bits", accepted},
	{"bare", "permessage-deflate", accepted},
	{"all parameters", "permessage-deflate;server_no_context_takeover;client_no_context_takeover;server_max_window_bits=12;client_max_window_bits=9", accepted + "; server_max_window_bits=12"},
	{"spaces", " \tpermessage-deflate \t; \tclient_max_window_bits \t", accepted},
	{"8 bits", "permessage-deflate; server_max_window_bits=8", accepted + "; server_max_window_bits=8"},
	{"9 bits", "permessage-deflate; server_max_window_bits=9", accepted + "; server_max_window_bits=9"},
	{"10 bits", "permessage-deflate; server_max_window_bits=10", accepted + "; server_max_window_bits=10"},
	{"15 bits", "permessage-deflate; server_max_window_bits=15", accepted + "; server_max_window_bits=15"},
	{"quoted bits", `permessage-deflate; server_max_window_bits="10"`, accepted + "; server_max_window_bits=10"},
	{"quoted and escaped bits", `permessage-deflate; server_max_window_bits="\1\0"`, accepted + "; server_max_window_bits=10"},
	{"7 bits", "permessage-deflate; server_max_window_bits=7", ""},
	{"16 bits", "permessage-deflate; server_max_window_bits=16", ""},
	{"19 bits", "permessage-deflate; server_max_window_bits=19", ""},
	{"0 bits", "permessage-deflate; server_max_window_bits=0", ""},
	{"80 bits", "permessage-deflate; server_max_window_bits=80", ""},
	{"100 bits", "permessage-deflate; server_max_window_bits=100", ""},
	{"2^32+8 bits", "permessage-deflate; server_max_window_bits=4294967304", ""},
	{"leading zero", "permessage-deflate; server_max_window_bits=08", ""},
	{"sign", "permessage-deflate; server_max_window_bits=+8", ""},
	{"no number", "permessage-deflate; server_max_window_bits=ten", ""},
	{"quoted 16 bits", `permessage-deflate; server_max_window_bits="16"`, ""},
	{"server bits without a value", "permessage-deflate; server_max_window_bits", ""},
	{"client bits 7", "permessage-deflate; client_max_window_bits=7", ""},
	{"client bits 16", "permessage-deflate; client_max_window_bits=16", ""},
	{"client bits with a leading zero", "permessage-deflate; client_max_window_bits=010", ""},
	{"client bits 8", "permessage-deflate; client_max_window_bits=8", accepted},
	{"a value for server_no_context_takeover", "permessage-deflate; server_no_context_takeover=1", ""},
	{"a value for client_no_context_takeover", `permessage-deflate; client_no_context_takeover="true"`, ""},
	{"server bits twice", "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", ""},
	{"client bits twice", "permessage-deflate; client_max_window_bits; client_max_window_bits=9", ""},
	{"server_no_context_takeover twice", "permessage-deflate; server_no_context_takeover; server_no_context_takeover", ""},
	{"client_no_context_takeover twice", "permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""},
	{"unknown parameter", "permessage-deflate; window=9", ""},
	{"unknown parameter with a quoted value", `permessage-deflate; window="9"`, ""},
	{"name in upper case", "Permessage-Deflate", ""},
	{"parameter in upper case", "permessage-deflate; Client_Max_Window_Bits", ""},
	{"longer name", "permessage-deflate2", ""},
	{"another extension", "permessage-bzip2; level=9", ""},
	{"WebKit's", "x-webkit-deflate-frame", ""},
	{"the second offer", "permessage-deflate; server_max_window_bits=16, permessage-deflate; server_max_window_bits=11, permessage-deflate", accepted + "; server_max_window_bits=11"},
	{"behind another extension", `other; a="b"; c=d, permessage-deflate`, accepted},
	{"on the second line", "other|permessage-deflate", accepted},
	{"two good lines", "permessage-deflate; server_max_window_bits=9|permessage-deflate", accepted + "; server_max_window_bits=9"},
	{"50 offers", strings.Repeat("permessage-deflate; unknown, ", 49) + "permessage-deflate", accepted},
	{"4 KiB of offers", strings.Repeat("permessage-deflate; server_max_window_bits=16, ", 90), ""},
	{"4 KiB of one parameter", "permessage-deflate; server_max_window_bits=" + strings.Repeat("9", 4096), ""},
	{"4 KiB of parameters", "permessage-deflate" + strings.Repeat("; client_max_window_bits", 170), ""},
	{"4 KiB of quoted escapes", `permessage-deflate; server_max_window_bits="` + strings.Repeat(`\9`, 2048) + `"`, ""},
	{"empty elements", ", ,permessage-deflate,,", accepted},
	{"commas alone", ",,,,", ""},
	{"empty value", "permessage-deflate; server_max_window_bits=", "400"},
	{"empty value, more behind", "permessage-deflate; client_max_window_bits=; server_no_context_takeover", "400"},
	{"empty quoted value", `permessage-deflate; server_max_window_bits=""`, "400"},
	{"quoted value that is no token", `permessage-deflate; server_max_window_bits="1 0"`, "400"},
	{"quoted comma", `other; a="b,c"`, "400"},
	{"no end of the quoted string", `permessage-deflate; server_max_window_bits="10`, "400"},
	{"no end of the escape", `permessage-deflate; server_max_window_bits="10\`, "400"},
	{"quoted string over two lines", `permessage-deflate; server_max_window_bits="10|"`, "400"},
	{"text behind the quoted string", `permessage-deflate; server_max_window_bits="1"0`, "400"},
	{"space before the equals sign", "permessage-deflate; server_max_window_bits =10", "400"},
	{"space behind the equals sign", "permessage-deflate; server_max_window_bits= 10", "400"},
	{"no name", "; server_no_context_takeover", "400"},
	{"no parameter", "permessage-deflate;", "400"},
	{"no parameter between", "permessage-deflate;; client_max_window_bits", "400"},
	{"value without a name", "permessage-deflate; =8", "400"},
	{"value of the extension", "permessage-deflate=1", "400"},
	{"two names", "permessage-deflate client_max_window_bits", "400"},
	{"not a token", "permessage-deflate; a@b", "400"},
	{"a high byte", "permessage-deflate; a\x80", "400"},
	{"bad behind good", "permessage-deflate, other;", "400"},
	{"bad line behind a good one", "permessage-deflate|;", "400"},
}

// negotiate gives the answer to lines as the table has them.
func negotiate(lines string) string {
	var a deflate.Answer
	for line := range strings.SplitSeq(lines, "|") {
		if err := a.Offer([]byte(line)); err != nil {
			return "400"
		}
	}
	return string(a.Append(nil))
}

func TestOffers(t *testing.T) {
	for _, c := range offers {
		if got := negotiate(c.lines); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestWindow(t *testing.T) {
	for line, want := range map[string]deflate.Window{"": deflate.NoWindow, "other": deflate.NoWindow,
		"permessage-deflate": deflate.Window15, "permessage-deflate; server_max_window_bits=15": deflate.Window15,
		"permessage-deflate; server_max_window_bits=14": deflate.Window9, "permessage-deflate; server_max_window_bits=9": deflate.Window9,
		"permessage-deflate; server_max_window_bits=8": deflate.Window8} {
		var a deflate.Answer
		if err := a.Offer([]byte(line)); err != nil || a.Window() != want {
			t.Errorf("%q: window %d, %v, want %d", line, a.Window(), err, want)
		}
	}
}

// The grammar of RFC 6455 section 9.1 as expressions, for the fuzz target.
var (
	token   = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
	quoted  = `"(?:\\?[!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z])+"`
	param   = `[ \t]*;[ \t]*` + token + `(?:=(?:` + token + `|` + quoted + `))?`
	element = `[ \t]*(?:` + token + `(?:` + param + `)*)?[ \t]*`
	isList  = regexp.MustCompile(`^` + element + `(?:,` + element + `)*$`)
	params  = regexp.MustCompile(`;[ \t]*(` + token + `)(=(?:` + token + `|` + quoted + `))?`)
	window  = regexp.MustCompile(`^=(?:[89]|1[0-5])$`)
)

// expected is Offer by those expressions.
func expected(line string) string {
	if !isList.MatchString(line) {
		return "400"
	}
	for e := range strings.SplitSeq(line, ",") {
		name, _, _ := strings.Cut(e, ";")
		if answer, ok := expectedOne(e); ok && strings.Trim(name, " \t") == "permessage-deflate" {
			return answer
		}
	}
	return ""
}

func expectedOne(offer string) (answer string, ok bool) {
	answer = accepted
	var names []string
	for _, p := range params.FindAllStringSubmatch(offer, -1) {
		name, value := p[1], strings.NewReplacer(`"`, "", `\`, "").Replace(p[2])
		if slices.Contains(names, name) {
			return "", false
		}
		names = append(names, name)
		switch {
		case strings.HasSuffix(name, "_no_context_takeover") && len(name) == 26 && (name[:6] == "server" || name[:6] == "client") && value == "":
		case name == "client_max_window_bits" && (value == "" || window.MatchString(value)):
		case name == "server_max_window_bits" && window.MatchString(value):
			answer += "; server_max_window_bits" + value
		default:
			return "", false
		}
	}
	return answer, true
}

func FuzzOffer(f *testing.F) {
	for _, c := range offers {
		f.Add(c.lines)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var a deflate.Answer
		err := a.Offer([]byte(line))
		got := string(a.Append(nil))
		if err != nil {
			got = "400"
		}
		if want := expected(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	})
}

func TestOfferAllocatesNothing(t *testing.T) {
	dst := make([]byte, 0, 256)
	for _, c := range offers {
		line := []byte(c.lines)
		got := testing.AllocsPerRun(10, func() {
			var a deflate.Answer
			_ = a.Offer(line)
			dst = a.Append(dst[:0])
		})
		if got != 0 {
			t.Errorf("%s: %v allocations, want 0", c.name, got)
		}
	}
}

// The work is linear: 16 KiB, all that a head may have, of whatever is dearest.
func BenchmarkOffer(b *testing.B) {
	for name, line := range map[string]string{
		"Chromium":              "permessage-deflate; client_max_window_bits",
		"adversarial/commas":    strings.Repeat(",", 16<<10),
		"adversarial/offers":    strings.Repeat("permessage-deflate;a,", 16<<10/21),
		"adversarial/escapes":   `a;b="` + strings.Repeat(`\9`, 8<<10-4) + `"`,
		"adversarial/semicolon": "a" + strings.Repeat(";b", 8<<10-1),
	} {
		b.Run(fmt.Sprintf("%s/%dB", name, len(line)), func(b *testing.B) {
			in := []byte(line)
			for b.Loop() {
				var a deflate.Answer
				if err := a.Offer(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
