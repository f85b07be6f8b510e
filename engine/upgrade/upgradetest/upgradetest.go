// Package upgradetest is hand-made request heads, good and bad, for tests of the parser and of whole gateways.
package upgradetest

import (
	"fmt"
	"strings"
)

// Head is what a client sends and the status that it gets: 101 where the head is a valid handshake, 426 also where it is a
// valid plain request.
type Head struct {
	Name   string
	Raw    string
	Status int
}

// Key is a valid Sec-WebSocket-Key, that of RFC 6455 section 1.3, whose Sec-WebSocket-Accept is Accept.
const (
	Key    = "dGhlIHNhbXBsZSBub25jZQ=="
	Accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// The lines of the plainest handshake.
const (
	line       = "GET /t/abc HTTP/1.1"
	host       = "Host: rt.example.com"
	upgrade    = "Upgrade: websocket"
	connection = "Connection: Upgrade"
	key        = "Sec-WebSocket-Key: " + Key
	version    = "Sec-WebSocket-Version: 13"
)

// Join makes a head of lines.
func Join(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

// Handshake is the plainest handshake with further lines at its end.
func Handshake(more ...string) string {
	return Join(append([]string{line, host, upgrade, connection, key, version}, more...)...)
}

// Browser is a handshake as browsers send it, about 600 bytes, with a ticket's second secret among the subprotocols.
var Browser = Join(
	"GET /t/"+strings.Repeat("Zm9vYmFy", 9)+" HTTP/1.1",
	host,
	"Connection: Upgrade",
	"Pragma: no-cache",
	"Cache-Control: no-cache",
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
	"Upgrade: websocket",
	"Origin: https://app.example.com",
	"Sec-WebSocket-Version: 13",
	"Accept-Encoding: gzip, deflate, br, zstd",
	"Accept-Language: en-GB,en;q=0.9",
	"Sec-WebSocket-Key: "+Key,
	"Sec-WebSocket-Protocol: ticketgate.v1, tgs_"+strings.Repeat("x", 43),
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)

// request is the plainest handshake with another first line.
func request(first string) string { return Join(first, host, upgrade, connection, key, version) }

// Upgrades is at least 60 heads about the rules of RFC 6455 section 4.2.1 and RFC 9110 section 7.8.
var Upgrades = upgrades()

func upgrades() []Head {
	t := []Head{
		{"plainest", Handshake(), 101},
		{"of a browser", Browser, 101},
		{"names in lower case", Join(line, "host: a", "upgrade: websocket", "connection: upgrade", "sec-websocket-key: "+Key, "sec-websocket-version: 13"), 101},
		{"values in upper case", Join(line, host, "UPGRADE: WEBSOCKET", "CONNECTION: UPGRADE", "SEC-WEBSOCKET-KEY: "+Key, "SEC-WEBSOCKET-VERSION: 13"), 101},
		{"no white space", Join(line, "Host:a", "Upgrade:websocket", "Connection:Upgrade", "Sec-WebSocket-Key:"+Key, "Sec-WebSocket-Version:13"), 101},
		{"white space around values", Join(line, "Host: \t a ", "Upgrade: websocket\t", "Connection:\tUpgrade", "Sec-WebSocket-Key:  "+Key+"  ", version), 101},
		{"Connection with keep-alive", Join(line, host, upgrade, "Connection: keep-alive, Upgrade", key, version), 101},
		{"Connection on two lines", Join(line, host, upgrade, "Connection: keep-alive", "Connection: upgrade", key, version), 101},
		{"Upgrade names two protocols", Join(line, host, "Upgrade: websocket, x", connection, key, version), 101},
		{"Upgrade on two lines", Join(line, host, "Upgrade: h2c", "Upgrade: websocket", connection, key, version), 101},
		{"lists with empty elements", Join(line, host, "Upgrade: , websocket,", "Connection: ,,Upgrade ,", key, version), 101},
		{"absolute form", request("GET http://rt.example.com/t/abc HTTP/1.1"), 101},
		{"absolute form, https", request("GET https://rt.example.com/t/abc?x=1 HTTP/1.1"), 101},
		{"Host with a port", Join(line, "Host: rt.example.com:9443", upgrade, connection, key, version), 101},
		{"Host is an IPv6 address", Join(line, "Host: [2001:db8::1]:9443", upgrade, connection, key, version), 101},
		{"subprotocols", Handshake("Sec-WebSocket-Protocol: ticketgate.v1, chat"), 101},
		{"subprotocols on two lines", Handshake("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: ticketgate.v1"), 101},
		{"the secret twice, the same", Handshake("Sec-WebSocket-Protocol: tgs_a", "Ticketgate-Secret: tgs_a"), 101},
		{"extensions", Handshake("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"), 101},
		{"UTF-8 in a cookie", Handshake("Cookie: name=Zoë"), 101},
		{"UTF-8 in a cookie, lines behind it", Handshake("Cookie: name=Zoë", "X-Request-Id: r1"), 101},
		{"100 header lines", Handshake(filler(95)...), 101},
		{"a head of 16 KiB", sized(16 << 10), 101},
		{"a target of 8000 bytes", request("GET /" + strings.Repeat("a", 7999) + " HTTP/1.1"), 101},

		{"no Upgrade", Join(line, host, connection, key, version), 426},
		{"no Connection", Join(line, host, upgrade, key, version), 426},
		{"a plain request", Join(line, host), 426},
		{"Connection without the upgrade option", Join(line, host, upgrade, "Connection: keep-alive", key, version), 426},
		{"Connection with another word", Join(line, host, upgrade, "Connection: Upgrades", key, version), 426},
		{"Connection with a quoted word", Join(line, host, upgrade, `Connection: "Upgrade"`, key, version), 426},
		{"Upgrade to h2c", Join(line, host, "Upgrade: h2c", connection, "HTTP2-Settings: AAMAAABkAARAAAAA", key, version), 426},
		{"Upgrade to web-socket", Join(line, host, "Upgrade: web-socket", connection, key, version), 426},
		{"Upgrade with a version", Join(line, host, "Upgrade: websocket/13", connection, key, version), 426},
		{"Upgrade with another separator", Join(line, host, "Upgrade: websocket; x", connection, key, version), 426},
		{"no version", Join(line, host, upgrade, connection, key), 426},
		{"version as a list", Join(line, host, upgrade, connection, key, "Sec-WebSocket-Version: 13, 8"), 426},
		{"version 013", Join(line, host, upgrade, connection, key, "Sec-WebSocket-Version: 013"), 426},
		{"empty version", Join(line, host, upgrade, connection, key, "Sec-WebSocket-Version:"), 426},

		{"no Host", Join(line, upgrade, connection, key, version), 400},
		{"empty Host", Join(line, "Host:", upgrade, connection, key, version), 400},
		{"two Hosts", Handshake("Host: other.example.com"), 400},
		{"two equal Hosts", Handshake(host), 400},
		{"no key", Join(line, host, upgrade, connection, version), 400},
		{"two keys", Handshake(key), 400},
		{"two versions", Handshake(version), 400},
		{"two Origins", Handshake("Origin: https://a", "Origin: https://b"), 400},
		{"two secrets in fields", Handshake("Ticketgate-Secret: tgs_a", "Ticketgate-Secret: tgs_a"), 400},
		{"two secrets in one list", Handshake("Sec-WebSocket-Protocol: tgs_a, tgs_b"), 400},
		{"two secrets over lines", Handshake("Sec-WebSocket-Protocol: tgs_a", "Sec-WebSocket-Protocol: tgs_b"), 400},
		{"two secrets, list and field", Handshake("Sec-WebSocket-Protocol: tgs_a", "Ticketgate-Secret: tgs_b"), 400},
		{"empty subprotocol", Handshake("Sec-WebSocket-Protocol:"), 400},
		{"empty subprotocol in a list", Handshake("Sec-WebSocket-Protocol: a,,b"), 400},
		{"subprotocol with a space", Handshake("Sec-WebSocket-Protocol: a b"), 400},
		{"subprotocol with a quote", Handshake(`Sec-WebSocket-Protocol: "a"`), 400},
		{"version under a name with '_'", Join(line, host, upgrade, connection, key, "Sec_WebSocket_Version: 13"), 400},
		{"secret under a name with '_'", Handshake("Ticketgate_Secret: tgs_a"), 400},
		{"Expect 100-continue", Handshake("Expect: 100-continue"), 400},
		{"Expect of something unknown", Handshake("Expect: the-best"), 400},
		{"HTTP/1.0", request("GET /t/abc HTTP/1.0"), 400},
		{"HTTP/1.2", request("GET /t/abc HTTP/1.2"), 400},
		{"HTTP/1.10", request("GET /t/abc HTTP/1.10"), 400},
		{"HTTP/2.0", request("GET /t/abc HTTP/2.0"), 400},
		{"HTTP/0.9", request("GET /t/abc"), 400},
		{"http in lower case", request("GET /t/abc http/1.1"), 400},
		{"no such protocol", request("GET /t/abc ICAP/1.1"), 400},
		{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
		{"absolute form, another host", request("GET http://other.example.com/t/abc HTTP/1.1"), 400},
		{"absolute form, another port", request("GET http://rt.example.com:81/t/abc HTTP/1.1"), 400},
		{"absolute form, user part", request("GET http://rt.example.com@other/t/abc HTTP/1.1"), 400},
		{"absolute form, no path", request("GET http://rt.example.com HTTP/1.1"), 400},
		{"absolute form, no host", request("GET http:///t/abc HTTP/1.1"), 400},
		{"absolute form, another scheme", request("GET ftp://rt.example.com/t/abc HTTP/1.1"), 400},
		{"asterisk form", request("GET * HTTP/1.1"), 400},
		{"authority form", request("GET rt.example.com:443 HTTP/1.1"), 400},
		{"method in lower case", request("get /t/abc HTTP/1.1"), 501},
		{"unknown method", request("BREW /t/abc HTTP/1.1"), 501},
		{"method with more behind it", request("GETS /t/abc HTTP/1.1"), 501},
		{"method of 33 bytes", request(strings.Repeat("M", 33) + " /t/abc HTTP/1.1"), 501},
		{"method of 16 KiB without an end", strings.Repeat("M", 16<<10), 501},
		{"CONNECT", Join("CONNECT rt.example.com:443 HTTP/1.1", host), 405},
		{"TRACE", request("TRACE /t/abc HTTP/1.1"), 405},
		{"OPTIONS *", Join("OPTIONS * HTTP/1.1", host), 405},
		{"a target of 8001 bytes", request("GET /" + strings.Repeat("a", 8000) + " HTTP/1.1"), 414},
		{"a target without an end", "GET /" + strings.Repeat("a", 9000), 414},
		{"101 header lines", Handshake(filler(96)...), 431},
		{"a head of 16 KiB and a byte", sized(16<<10 + 1), 431},
		{"a line without an end", line + "\r\nCookie: " + strings.Repeat("a", 17<<10), 431},
	}
	for _, v := range []string{"0", "7", "8", "12", "14", "255", "-13", "13.0"} {
		t = append(t, Head{"version " + v, Join(line, host, upgrade, connection, key, "Sec-WebSocket-Version: "+v), 426})
	}
	for _, m := range []string{"HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		t = append(t, Head{m, request(m + " /t/abc HTTP/1.1"), 405})
	}
	for _, k := range []struct{ name, key string }{
		{"empty", ""}, {"of 15 bytes", "MTIzNDU2Nzg5MDEyMzQ1"}, {"of 18 bytes", "dGhlIHNhbXBsZSBub25jZQAA"}, {"of 17 bytes", "MTIzNDU2Nzg5MDEyMzQ1Njc="}, {"without padding", "dGhlIHNhbXBsZSBub25jZQ"},
		{"with spare bits", "dGhlIHNhbXBsZSBub25jZR=="}, {"in the URL alphabet", "dGhlIHNhbXBsZSBub25jZ_=="}, {"with '-'", "dGhlIHNhbXBsZS1ub25j-Q=="},
		{"with a space", "dGhlIHNhbXBsZSB ub25jZQ="}, {"with three '='", "dGhlIHNhbXBsZSBub25jZ==="}, {"not base64", "!!!!!!!!!!!!!!!!!!!!!!=="},
		{"as a list", Key + ", " + Key},
	} {
		t = append(t, Head{"key " + k.name, Join(line, host, upgrade, connection, "Sec-WebSocket-Key: "+k.key, version), 400})
	}
	return t
}

// filler gives n harmless lines.
func filler(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-Filler-%d: x", i))
	}
	return lines
}

// sized gives a handshake of n bytes.
func sized(n int) string {
	empty := len(Handshake("Cookie: "))
	return Handshake("Cookie: " + strings.Repeat("c", n-empty))
}

// Smuggling is at least 80 handshakes whose end, or the end of whose lines, two parsers could see in different places.
var Smuggling = SmugglingFor(line, host, upgrade, connection, key, version)

// SmugglingFor builds the table around another request: its first line and header lines, which must be valid and have a
// Host. Where the request has a body of its own, with a Content-Length, every row stays bad.
func SmugglingFor(first string, header ...string) []Head {
	base := append([]string{first}, header...)
	with := func(more ...string) string { return Join(append(base[:len(base):len(base)], more...)...) }
	var t []Head
	add := func(status int, name string, more ...string) { t = append(t, Head{name, with(more...), status}) }
	raw := func(name, raw string) { t = append(t, Head{name, raw, 400}) }

	for _, v := range []string{"5", "+5", "-5", "-0", "0x5", "5,5", "5, 5", "5 5", "05", "", " ", "5;", "5.0", "1e1", "'5'", "five",
		"18446744073709551616", "9223372036854775808", "99999999999999999999999999"} {
		add(400, fmt.Sprintf("Content-Length %q", v), "Content-Length: "+v)
	}
	add(400, "two equal Content-Lengths", "Content-Length: 5", "Content-Length: 5")
	add(400, "two Content-Lengths", "Content-Length: 5", "Content-Length: 6")
	add(400, "Content-Length, names in two cases", "Content-Length: 5", "CONTENT-LENGTH: 0")
	add(400, "both length fields", "Content-Length: 5", "Transfer-Encoding: chunked")
	add(400, "both length fields, the other way", "Transfer-Encoding: chunked", "Content-Length: 5")
	for _, v := range []string{"chunked", "CHUNKED", "chunked, chunked", "", ",", "chunked,", ", chunked", `"chunked"`, "chunked;", "chunked ;x=1", "chunked chunked", "chu nked"} {
		add(400, fmt.Sprintf("Transfer-Encoding %q", v), "Transfer-Encoding: "+v)
	}
	for _, v := range []string{"identity", "gzip", "gzip, chunked", "chunked, gzip", "xchunked", "chunkedx", "chunked-", "deflate", "compress", "x", "cow", "trailers"} {
		add(501, fmt.Sprintf("Transfer-Encoding %q", v), "Transfer-Encoding: "+v)
	}
	add(400, "two Transfer-Encodings", "Transfer-Encoding: chunked", "Transfer-Encoding: identity")
	for _, l := range []string{
		"Content_Length: 5", "content_length: 5", "Transfer_Encoding: chunked", "TRANSFER_ENCODING: chunked", "Content-Length : 5", "Content-Length\t: 5",
		"Transfer-Encoding : chunked", " Content-Length: 5", "\tTransfer-Encoding: chunked", ": empty", "Content Length: 5", "NoColon", "Name", "X",
		"X(Y): paren", "X/Y: slash", "X@Y: at", "X=Y: equals", "X[Y]: bracket", "X,Y: comma", "X;Y: semicolon", `X"Y: quote`, "X\\Y: backslash", "X{Y}: brace",
		"X\x80Y: high byte in a name", "Content-L\xc3\xa9ngth: 5", "X: high \xff byte", "X: \xc2\xa0", "Foo\xa0: bar",
	} {
		add(400, fmt.Sprintf("line %q", l), l)
	}
	add(400, "folded line", "X: a", " b")
	add(400, "folded line with a tab", "X: a", "\tTransfer-Encoding: chunked")
	add(400, "folded empty line", "X: a", " ")
	for _, c := range []byte{0, 1, 8, 0x0b, 0x0c, 0x0e, 0x1b, 0x1f, 0x7f} {
		add(400, fmt.Sprintf("byte %#02x in a value", c), "X: a"+string(rune(c))+"b")
		add(400, fmt.Sprintf("byte %#02x in a name", c), "X"+string(rune(c))+"Y: a")
	}
	add(400, "byte 0x0b before a coding", "Transfer-Encoding: \x0bchunked")
	add(400, "bare CR in a value", "X: a\rb")
	add(400, "bare CR makes a line", "X: a\rTransfer-Encoding: chunked")
	add(400, "bare LF makes a line", "X: a\nTransfer-Encoding: chunked")
	add(400, "CR CR LF", "X: a\r")
	for _, h := range []string{"user@rt.example.com", "user:pw@rt.example.com", "a b", "a,b", "a/b", "a?b", "a#b", "a\\b", "a%41", "a:", "a:x", "a:99999", "a:0",
		":80", "[::1", "::1", "[::1]x", "[fe80::1%25eth0]", "[v1.x]", "a..b", ".a", "a:80:80", "<a>", "a'b", "a;b", "a|b", "a^b", "é.example", strings.Repeat("a", 256)} {
		t = append(t, Head{fmt.Sprintf("Host %q", h), swapHost(base, h), 400})
	}
	body := with()
	raw("empty line first", "\r\n"+body)
	raw("two empty lines first", "\r\n\r\n"+body)
	raw("LF first", "\n"+body)
	raw("space first", " "+body)
	raw("bare LFs only", strings.ReplaceAll(body, "\r\n", "\n"))
	raw("bare CRs only", strings.ReplaceAll(body, "\r\n", "\r"))
	raw("one bare LF", strings.Replace(body, "\r\n", "\n", 1))
	raw("LF CR", strings.ReplaceAll(body, "\r\n", "\n\r"))
	raw("empty line with a bare LF", strings.TrimSuffix(body, "\r\n")+"\n")
	raw("two spaces behind the method", strings.Replace(body, " ", "  ", 1))
	raw("tab behind the method", strings.Replace(body, " ", "\t", 1))
	raw("two spaces before the version", strings.Replace(body, " HTTP/1.1", "  HTTP/1.1", 1))
	raw("tab before the version", strings.Replace(body, " HTTP/1.1", "\tHTTP/1.1", 1))
	raw("space behind the version", strings.Replace(body, "HTTP/1.1\r\n", "HTTP/1.1 \r\n", 1))
	raw("a fourth word", strings.Replace(body, "HTTP/1.1\r\n", "HTTP/1.1 HTTP/1.1\r\n", 1))
	raw("first line folded", strings.Replace(body, " HTTP/1.1\r\n", "\r\n HTTP/1.1\r\n", 1))
	raw("white space behind the first line", strings.Replace(body, "HTTP/1.1\r\n", "HTTP/1.1\r\n \r\n", 1))
	raw("NUL in the target", strings.Replace(body, " HTTP/1.1", "\x00 HTTP/1.1", 1))
	raw("NUL first", "\x00"+body)
	return t
}

// swapHost is the head of base with another Host.
func swapHost(base []string, h string) string {
	lines := append([]string{}, base...)
	for i, l := range lines {
		if strings.HasPrefix(strings.ToLower(l), "host:") {
			lines[i] = "Host: " + h
		}
	}
	return Join(lines...)
}

// Targets is at least 60 handshakes that differ in the request target alone.
var Targets = targets()

func targets() (t []Head) {
	for _, target := range []string{
		"/", "/t/abc", "/t/abc/", "/t/a-b_c~d", "/t/a.b", "/.well-known/x", "/t/..a", "/t/a%20b", "/t/%C3%A9", "/t/%E2%82%AC", "/t/%F0%9F%98%80",
		"/t/a:b@c!$&'()*+,=", "/t/a%3Fb", "/t/100%25", "/t/100%25x", "/t/a?", "/t/a?x=1&y=/../2", "/t/a?u=https://b.c//d", "/t/a?x=%2F", "/t/a?x=%252F", "/t/a?x=a%3Bb",
		"/t/a??", "/t/a?.",
	} {
		t = append(t, Head{"target " + target, request("GET " + target + " HTTP/1.1"), 101})
	}
	for _, target := range []string{
		"", "t/abc", "abc", "?x", "./t", "../t", "/.", "/..", "/./t", "/../t", "/t/.", "/t/..", "/t/./a", "/t/../a", "/t/../../a", "/t/a/..?x", "/t/...", "/t/a.", "/t/a./b", "/t/a.?x",
		"//", "//t", "/t//abc", "/t/abc//", "//rt.example.com/t", "/%2e%2e/t", "/t/%2e%2e/a", "/t/%2E%2E/a", "/t/.%2E/a", "/t/%2E./a", "/t/%2e", "/t/a%2E", "/t%2fabc", "/t%2Fabc",
		"/t/..%2Fa", "/t%5cabc", "/t%5Cabc", "/t\\abc", "/t/..\\a", "/t/%00", "/t/abc%00.js", "/t/%0D%0A", "/t/%0a", "/t/%09", "/t/%1F", "/t/%7F", "/t/%252e%252e/a", "/t/%252F", "/t/%255C", "/t/%2500",
		"/t/%25%32%65", "/t/%c3%a9", "/t/%e2%82%ac", "/t/%3f", "/t/%41bc", "/t/%7Ea", "/t/%2D", "/t/%", "/t/%2", "/t/%zz", "/t/%u002e", "/t/a%", "/t/%%41", "/t/%G0",
		"/t;a", "/t/abc;jsessionid=1", "/t;/../a", "/t/a%3Bb", "/t/abc#x", "/#", "/t/a?x#y", "/t/a?x=%00", "/t/a?x=%0A", "/t/a?x;y", "/t/a?x=%", "/t/a?x=%2f", "/t/a?x=%FF", "/t/a?x=\"", "/t/a?x=<",
		"/t/\xff", "/t/\xc3\xa9", "/t/%FF", "/t/%C3", "/t/%C3%28", "/t/%C3a", "/t/%C0%AF", "/t/%C0%AE", "/t/%ED%A0%80", "/t/%F4%90%80%80", "/t/%E2%82", "/t/%F0%9F%98", "/t/%80",
		"/t/<a>", "/t/\"a\"", "/t/{a}", "/t/a|b", "/t/a^b", "/t/`a`", "/t/[a]", "/t/a\tb", "/t/a\x7f",
	} {
		t = append(t, Head{fmt.Sprintf("target %q", target), request("GET " + target + " HTTP/1.1"), 400})
	}
	return t
}
