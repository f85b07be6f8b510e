package handshake_test

import (
	"fmt"
	"strings"
)

// KEY in a head stands for an API key that would open a stream; BODY is the request that would.
const (
	wanted = `{"stream":"chat"}`
	auth1  = "X-API-Key: KEY\r\nContent-Type: application/json\r\n"
	length = "Content-Length: 17\r\n"

	inChunks = "11\r\n" + wanted + "\r\n0\r\n\r\n" // 27 bytes
)

// badHead is what must be refused before anything reads it as a request. All would get a ticket if the fault were not seen.
type badHead struct {
	name   string
	text   string
	status int
}

// with is a request for a ticket with further header lines.
func with(lines string) string {
	return "POST /v1/tickets HTTP/1.1\r\nHost: a\r\n" + auth1 + lines + "\r\n" + wanted
}

// first is one with another request line.
func first(line string) string {
	return line + "\r\nHost: a\r\n" + auth1 + length + "\r\n" + wanted
}

// to is one to another target.
func to(target string) string { return first("POST " + target + " HTTP/1.1") }

// host is one with other Host lines.
func host(lines string) string {
	return "POST /v1/tickets HTTP/1.1\r\n" + lines + auth1 + length + "\r\n" + wanted
}

// chunkedBody is with a body in chunks.
func chunkedBody(body string) string {
	return strings.TrimSuffix(with("Transfer-Encoding: chunked\r\n"), wanted) + body
}

func badHeads() []badHead {
	long := strings.Repeat("a", 16<<10)
	rows := []badHead{
		// The length of the body.
		{"both lengths", with(length + "Transfer-Encoding: chunked\r\n"), 400},
		{"both lengths, other order", with("Transfer-Encoding: chunked\r\n" + length), 400},
		{"length twice", with(length + length), 400},
		{"two lengths", with(length + "Content-Length: 5\r\n"), 400},
		{"list of equal lengths", with("Content-Length: 17, 17\r\n"), 400},
		{"list of lengths", with("Content-Length: 17,5\r\n"), 400},
		{"plus", with("Content-Length: +17\r\n"), 400},
		{"minus", with("Content-Length: -17\r\n"), 400},
		{"minus zero", with("Content-Length: -0\r\n"), 400},
		{"hex length", with("Content-Length: 0x11\r\n"), 400},
		{"empty length", with("Content-Length:\r\n"), 400},
		{"blank length", with("Content-Length: \t \r\n"), 400},
		{"length with a fraction", with("Content-Length: 17.0\r\n"), 400},
		{"length with an exponent", with("Content-Length: 1e1\r\n"), 400},
		{"length with a space inside", with("Content-Length: 1 7\r\n"), 400},
		{"length with underscore", with("Content-Length: 1_7\r\n"), 400},
		{"length and a letter", with("Content-Length: 17a\r\n"), 400},
		{"quoted length", with("Content-Length: \"17\"\r\n"), 400},
		{"length of 64 bits", with("Content-Length: 18446744073709551616\r\n"), 400},
		{"length that wraps to 17", with("Content-Length: 18446744073709551633\r\n"), 400},
		{"length over the limit", with("Content-Length: 16385\r\n"), 413},
		{"length of 63 bits", with("Content-Length: 9223372036854775807\r\n"), 413},
		{"length with an underscore in the name", with("Content_Length: 17\r\n"), 400},
		{"length with a space before the colon", with("Content-Length : 17\r\n"), 400},
		{"length with a tab before the colon", with("Content-Length\t: 17\r\n"), 400},
		{"both lengths, each right", strings.TrimSuffix(with("Content-Length: 27\r\nTransfer-Encoding: chunked\r\n"), wanted) + inChunks, 400},
		// Transfer codings.
		{"identity", with("Transfer-Encoding: identity\r\n"), 501},
		{"gzip", with("Transfer-Encoding: gzip\r\n"), 501},
		{"gzip, chunked", with("Transfer-Encoding: gzip, chunked\r\n"), 501},
		{"chunked, identity", with("Transfer-Encoding: chunked, identity\r\n"), 501},
		{"chunked, chunked", with("Transfer-Encoding: chunked, chunked\r\n"), 501},
		{"chunked twice", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
		{"xchunked", with("Transfer-Encoding: xchunked\r\n"), 501},
		{"chunked with parameter", with("Transfer-Encoding: chunked;q=1\r\n"), 501},
		{"quoted chunked", with("Transfer-Encoding: \"chunked\"\r\n"), 501},
		{"empty coding", with("Transfer-Encoding:\r\n"), 501},
		{"coding with vertical tab", with("Transfer-Encoding: \x0bchunked\r\n"), 400},
		{"coding with NUL", with("Transfer-Encoding: chunked\x00\r\n"), 400},
		{"coding with an underscore", with("Transfer_Encoding: chunked\r\n"), 400},
		{"coding with a space before the colon", with("Transfer-Encoding : chunked\r\n"), 400},
		{"folded coding", with("Transfer-Encoding:\r\n chunked\r\n"), 501},
		{"chunked in HTTP/1.0", strings.Replace(with("Transfer-Encoding: chunked\r\n"), "HTTP/1.1", "HTTP/1.0", 1), 400},
		{"chunked in HTTP/1.0, complete", strings.Replace(chunkedBody(inChunks), "HTTP/1.1", "HTTP/1.0", 1), 400},
		// Chunks.
		{"chunk size with another byte for CR", chunkedBody("11;\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk extension", chunkedBody("11;a=b\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk size with LF", chunkedBody("11\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk with LF", chunkedBody("11\r\n" + wanted + "\n0\r\n\r\n"), 400},
		{"chunk size 0x", chunkedBody("0x11\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk size with plus", chunkedBody("+11\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk size with minus", chunkedBody("-11\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk size with space", chunkedBody("11 \r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk size with space in front", chunkedBody(" 11\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"no chunk size", chunkedBody("\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk too short", chunkedBody("10\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk too long", chunkedBody("12\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk size that wraps", chunkedBody("10000000000000011\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"chunk size with many zeros", chunkedBody(strings.Repeat("0", 40) + "11\r\n" + wanted + "\r\n0\r\n\r\n"), 400},
		{"trailer", chunkedBody("11\r\n" + wanted + "\r\n0\r\nHost: b\r\n\r\n"), 400},
		{"chunk over the limit", chunkedBody("4001\r\n"), 413},
		{"chunks over the limit", chunkedBody("4000\r\n" + long + "\r\n1\r\n"), 413},
		// Lines.
		{"folded line", with(length + "X-A: 1\r\n 2\r\n"), 400},
		{"folded with a tab", with(length + "X-A: 1\r\n\t2\r\n"), 400},
		{"fold after the request line", first("POST /v1/tickets HTTP/1.1\r\n X-A: 1"), 400},
		{"empty name", with(length + ": 1\r\n"), 400},
		{"no colon", with(length + "X-A\r\n"), 400},
		{"space in a name", with(length + "X A: 1\r\n"), 400},
		{"space before the name", with(length + " X-A: 1\r\n"), 400},
		{"underscore in a name", with(length + "X_A: 1\r\n"), 400},
		{"high byte in a name", with(length + "X-\xe4: 1\r\n"), 400},
		{"quote in a name", with(length + "X\"A: 1\r\n"), 400},
		{"NUL in a name", with(length + "X\x00A: 1\r\n"), 400},
		{"NUL in a value", with(length + "X-A: 1\x002\r\n"), 400},
		{"DEL in a value", with(length + "X-A: \x7f\r\n"), 400},
		{"high byte in a value", with(length + "X-A: \xe4\r\n"), 400},
		{"UTF-8 in a value", with(length + "X-A: ü\r\n"), 400},
		{"bare CR in a value", with(length + "X-A: 1\rX-B: 2\r\n"), 400},
		{"bare LF", with(length + "X-A: 1\nX-B: 2\r\n"), 400},
		{"bare LF everywhere", strings.ReplaceAll(with(length), "\r\n", "\n"), 400},
		{"CR CR LF", with(length + "X-A: 1\r\r\n"), 400},
		{"LF CR", with(length + "X-A: 1\n\rX-B: 2\r\n"), 400},
		{"head ends in LF LF", strings.Replace(with(length), "\r\n\r\n", "\n\n", 1), 400},
		{"blank line in front", "\r\n" + with(length), 400},
		{"LF in front", "\n" + with(length), 400},
		{"space in front", " " + with(length), 400},
		{"BOM in front", "\xef\xbb\xbf" + with(length), 400},
		{"expects something", with(length + "Expect: 200-ok\r\n"), 417},
		{"expects two things", with(length + "Expect: 100-continue, x\r\n"), 417},
		{"expects twice", with(length + "Expect: 100-continue\r\nExpect: 100-continue\r\n"), 400},
		{"two media types", with(length + "Content-Type: text/plain\r\n"), 400},
		{"two origins", with(length + "Origin: https://a\r\nOrigin: https://b\r\n"), 400},
		{"two authorizations", with(length + "Authorization: a\r\nAuthorization: b\r\n"), 400},
		// Host.
		{"no host", host(""), 400},
		{"two hosts", host("Host: a\r\nHost: b\r\n"), 400},
		{"the same host twice", host("Host: a\r\nhost: a\r\n"), 400},
		{"host with user part", host("Host: u@a\r\n"), 400},
		{"empty host", host("Host:\r\n"), 400},
		{"host with a space", host("Host: a b\r\n"), 400},
		{"list of hosts", host("Host: a,b\r\n"), 400},
		{"host with a path", host("Host: a/b\r\n"), 400},
		{"host with a query", host("Host: a?b\r\n"), 400},
		{"host with an escape", host("Host: a%00b\r\n"), 400},
		{"host with two ports", host("Host: a:1:2\r\n"), 400},
		{"host with a port that is none", host("Host: a:b\r\n"), 400},
		{"host with no port", host("Host: a:\r\n"), 400},
		{"host with a long port", host("Host: a:123456\r\n"), 400},
		{"host in half a bracket", host("Host: [::1\r\n"), 400},
		{"host with rubbish after the bracket", host("Host: [::1]a\r\n"), 400},
		{"host with a zone", host("Host: [fe80::1%25eth0]\r\n"), 400},
		{"host with IPv4 in brackets", host("Host: [127.0.0.1]\r\n"), 400},
		{"port alone", host("Host: :80\r\n"), 400},
		{"host with an underscore in the name", host("Ho_st: a\r\n"), 400},
		{"long host", host("Host: " + strings.Repeat("a", 256) + "\r\n"), 400},
		// The request line.
		{"two spaces", first("POST  /v1/tickets HTTP/1.1"), 400},
		{"two spaces before the version", first("POST /v1/tickets  HTTP/1.1"), 400},
		{"tab", first("POST\t/v1/tickets HTTP/1.1"), 400},
		{"space behind", first("POST /v1/tickets HTTP/1.1 "), 400},
		{"space in the target", first("POST /v1/tickets x HTTP/1.1"), 400},
		{"no target", first("POST HTTP/1.1"), 400},
		{"no version", first("POST /v1/tickets"), 400},
		{"method alone", first("POST"), 400},
		{"no method", first(" /v1/tickets HTTP/1.1"), 400},
		{"HTTP/1.2", first("POST /v1/tickets HTTP/1.2"), 505},
		{"HTTP/1.9", first("POST /v1/tickets HTTP/1.9"), 505},
		{"HTTP/2.0", first("POST /v1/tickets HTTP/2.0"), 505},
		{"HTTP/0.9", first("POST /v1/tickets HTTP/0.9"), 505},
		{"HTTP/1.10", first("POST /v1/tickets HTTP/1.10"), 400},
		{"HTTP/01.1", first("POST /v1/tickets HTTP/01.1"), 400},
		{"HTTP/1", first("POST /v1/tickets HTTP/1"), 400},
		{"http/1.1", first("POST /v1/tickets http/1.1"), 400},
		{"another protocol", first("POST /v1/tickets ICY/1.1"), 400},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400},
		{"CONNECT", first("CONNECT a:443 HTTP/1.1"), 501},
		{"TRACE", first("TRACE /v1/tickets HTTP/1.1"), 501},
		{"lower-case method", first("post /v1/tickets HTTP/1.1"), 501},
		{"method with a letter more", first("POSTX /v1/tickets HTTP/1.1"), 501},
		{"method that is no token", first("PO(ST /v1/tickets HTTP/1.1"), 400},
		// Bodies that nobody reads.
		{"body on GET", first("GET /v1/streams HTTP/1.1"), 400},
		{"body on HEAD", first("HEAD /v1/streams HTTP/1.1"), 400},
		{"body on DELETE", first("DELETE /v1/tickets/a HTTP/1.1"), 400},
		{"body on OPTIONS", first("OPTIONS /v1/tickets HTTP/1.1"), 400},
		{"chunked GET", strings.Replace(with("Transfer-Encoding: chunked\r\n"), "POST", "GET", 1), 400},
		// Size.
		{"target of 8001 bytes", to("/" + long[:8000]), 414},
		{"target of 9000 bytes", to("/" + long[:8999]), 414},
		{"target without an end", "POST /" + long, 414},
		{"10,000 query parameters", to("/v1/tickets?" + strings.Repeat("a&", 10_000)), 414},
		{"101 lines", with(length + strings.Repeat("X-A: 1\r\n", 98)), 431},
		{"100,000 tiny lines", with(length + strings.Repeat("a:\r\n", 100_000)), 431},
		{"head of 16 KiB and a byte", exactly(16<<10 + 1), 431},
		{"one line of 1 MiB", with(length + "Cookie: " + strings.Repeat("a", 1<<20) + "\r\n"), 431},
	}
	for _, target := range badTargets {
		rows = append(rows, badHead{fmt.Sprintf("target %.40q", target), to(target), 400})
	}
	return rows
}

// exactly is a request whose head has n bytes when a key stands in it.
func exactly(n int) string {
	fill := func(k int) string { return with(length + "X-A: " + strings.Repeat("a", k) + "\r\n") }
	return fill(n - len(fill(0)) + len(wanted) + len("KEY") - len("tgk_app_") - 43)
}

// badTargets are not in canonical form, although a generous reader finds /v1/tickets in most of them.
var badTargets = []string{
	"*", "v1/tickets", "\\v1\\tickets", "/v1\\tickets", "//v1/tickets", "/v1//tickets", "/v1/tickets//", "///", "/./v1/tickets", "/v1/./tickets",
	"/v1/x/../tickets", "/v1/tickets/.", "/v1/tickets/..", "/..", "/v1/%2e%2e/v1/tickets", "/v1/%2E%2E/tickets", "/v1/%2e/tickets",
	"/v1%2ftickets", "/v1%2Ftickets", "/v1%5ctickets", "/v1/tickets%00", "/v1/tickets%", "/v1/tickets%2", "/v1/tickets%zz", "/v1/ticket%73",
	"/v1/%74ickets", "/v1/tickets%20", "/v1/%252e%252e/tickets", "/v1/tickets#a", "/v1/tickets?a#b", "/v1/tickets?%00", "/v1/tickets?%0",
	"/v1/tickets?%61", "/v1/tickets?a%2", "/v1/tickets?a%2f", "/v1/tickets?a\"", "/v1/tickets?<", "/v1/tickets?[", "/v1/tickets?\\",
	"/v1/\"tickets", "/v1/<tickets", "/v1/tickets|", "/v1/tickets^", "/v1/tickets`", "/v1/{tickets", "/v1/[tickets]",
	"http://b/v1/tickets", "http://a:80/v1/tickets", "http://u@a/v1/tickets", "http://a", "http://a?b", "http:///v1/tickets", "http:/v1/tickets",
	"://a/v1/tickets", "ftp://a/v1/tickets", "http://a//v1/tickets", "http://a/../v1/tickets", "a:443", "a/v1/tickets", "?", "#",
}

// goodHeads are canonical requests for a ticket in less usual forms. All get one.
func goodHeads() map[string]string {
	lines := strings.Repeat("X-A: 1\r\n", 96)
	return map[string]string{
		"usual":                 with(length),
		"absolute form":         to("http://a/v1/tickets"),
		"absolute form, https":  to("HTTPS://A/v1/tickets"),
		"other letters":         strings.NewReplacer("Host", "hOST", "Content-Length", "CONTENT-LENGTH").Replace(with(length)),
		"tabs around values":    with("Content-Length:\t17\t \r\n"),
		"no space after colons": strings.ReplaceAll(with(length), ": ", ":"),
		"leading zeros":         with("Content-Length: 0017\r\n"),
		"empty value":           with(length + "X-A:\r\n"),
		"charset":               strings.Replace(with(length), "application/json", "Application/JSON; charset=utf-8", 1),
		"host with port":        host("Host: a.example:8080\r\n"),
		"IPv6 host":             host("Host: [::1]:8080\r\n"),
		"100 lines":             with(length + lines),
		"head of 16 KiB":        exactly(16 << 10),
		"chunked":               chunkedBody("11\r\n" + wanted + "\r\n0\r\n\r\n"),
		"Chunked in pieces":     strings.Replace(chunkedBody("1\r\n{\r\n0f\r\n"+wanted[1:16]+"\r\n01\r\n}\r\n00\r\n\r\n"), "chunked", "Chunked", 1),
		"expects to go on":      with(length + "Expect: 100-Continue\r\n"),
		"HTTP/1.0":              first("POST /v1/tickets HTTP/1.0"),
		"HTTP/1.0 without host": "POST /v1/tickets HTTP/1.0\r\n" + auth1 + length + "\r\n" + wanted,
		"bearer":                strings.Replace(with(length), "X-API-Key: KEY", "Authorization: Bearer KEY", 1),
		"an upgrade to ignore":  with(length + "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
	}
}
