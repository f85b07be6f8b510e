package proxy_test

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"

	"ticketgate/engine/proxy"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// v2 is a version 2 header whose length fits what follows.
func v2(command, family byte, parts ...string) string {
	block := strings.Join(parts, "")
	return v2n(command, family, len(block), block)
}

// v2n is a version 2 header that says length.
func v2n(command, family byte, length int, block string) string {
	return signature + string([]byte{command, family, byte(length >> 8), byte(length)}) + block
}

func tlv(kind byte, value string) string {
	return string([]byte{kind, byte(len(value) >> 8), byte(len(value))}) + value
}

// summed puts the checksum of raw into its four bytes at, which are zeros.
func summed(raw string, at int) string {
	b := []byte(raw)
	binary.BigEndian.PutUint32(b[at:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

const (
	local, proxied               = 0x20, 0x21
	tcp4, tcp6, unix             = 0x11, 0x21, 0x31
	unspec, udp4, udp6, datagram = 0x00, 0x12, 0x22, 0x32

	noSum = "\x03\x00\x04\x00\x00\x00\x00"

	from4 = "192.0.2.1:56324"
	to4   = "198.51.100.2:443"
	from6 = "[2001:db8::1]:56324"
	to6   = "[2001:db8::2]:443"
)

var (
	block4    = "\xc0\x00\x02\x01" + "\xc6\x33\x64\x02" + "\xdc\x04" + "\x01\xbb"
	block6    = ip16("2001:db8::1") + ip16("2001:db8::2") + "\xdc\x04" + "\x01\xbb"
	blockUnix = "/run/client" + strings.Repeat("\x00", 97) + "/run/proxy" + strings.Repeat("\x00", 98)
)

func ip16(text string) string {
	b := netip.MustParseAddr(text).As16()
	return string(b[:])
}

// A row is what comes on a connection. rest, of no meaning to Parse, follows the header.
type row struct {
	name, raw, rest string
	from, to        string // "" for none
	err             error
}

func v1(rest string) string { return "PROXY " + rest + "\r\n" }

// good are headers.
var good = []row{
	{name: "v1 IPv4", raw: v1("TCP4 192.0.2.1 198.51.100.2 56324 443"), from: from4, to: to4},
	{name: "v1 IPv4 and a request", raw: v1("TCP4 192.0.2.1 198.51.100.2 56324 443"), rest: "GET / HTTP/1.1\r\n", from: from4, to: to4},
	{name: "v1 IPv4 and TLS", raw: v1("TCP4 192.0.2.1 198.51.100.2 56324 443"), rest: "\x16\x03\x01\x02\x00\x01", from: from4, to: to4},
	{name: "v1 IPv4 and another header", raw: v1("TCP4 192.0.2.1 198.51.100.2 56324 443"), rest: v1("UNKNOWN"), from: from4, to: to4},
	{name: "v1 shortest", raw: v1("TCP4 0.0.0.0 0.0.0.0 0 0"), from: "0.0.0.0:0", to: "0.0.0.0:0"},
	{name: "v1 largest IPv4", raw: v1("TCP4 255.255.255.255 255.255.255.255 65535 65535"), from: "255.255.255.255:65535", to: "255.255.255.255:65535"},
	{name: "v1 IPv6", raw: v1("TCP6 2001:db8::1 2001:db8::2 56324 443"), from: from6, to: to6},
	{name: "v1 IPv6 in capitals", raw: v1("TCP6 2001:DB8::1 2001:dB8::2 56324 443"), from: from6, to: to6},
	{name: "v1 IPv6 written out", raw: v1("TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 2001:db8:0:0:0:0:0:2 56324 443"), from: from6, to: to6},
	{name: "v1 IPv6 nothing", raw: v1("TCP6 :: ::1 1 2"), from: "[::]:1", to: "[::1]:2"},
	{name: "v1 IPv6 zeros behind", raw: v1("TCP6 fe80:: 1:2:3:4:5:6:7:: 1 2"), from: "[fe80::]:1", to: "[1:2:3:4:5:6:7:0]:2"},
	{name: "v1 IPv6 zeros before", raw: v1("TCP6 ::2:3:4:5:6:7:8 ::8 1 2"), from: "[0:2:3:4:5:6:7:8]:1", to: "[::8]:2"},
	{name: "v1 IPv6 zeros for one group", raw: v1("TCP6 1:2:3::5:6:7:8 1::3:4:5:6:7:8 1 2"), from: "[1:2:3:0:5:6:7:8]:1", to: "[1:0:3:4:5:6:7:8]:2"},
	{name: "v1 IPv6 largest", raw: v1("TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535"),
		from: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", to: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
	{name: "v1 IPv4 as IPv6", raw: v1("TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 56324 443"), from: from4, to: to4},
	{name: "v1 IPv6 that ends in decimals", raw: v1("TCP6 64:ff9b::192.0.2.1 1:2:3:4:5:6:1.2.3.4 1 2"), from: "[64:ff9b::c000:201]:1", to: "[1:2:3:4:5:6:102:304]:2"},
	{name: "v1 IPv6 decimals behind five groups", raw: v1("TCP6 1:2:3:4:5::1.2.3.4 ::1.2.3.4 1 2"), from: "[1:2:3:4:5:0:102:304]:1", to: "[::102:304]:2"},
	{name: "v1 unknown", raw: v1("UNKNOWN")},
	{name: "v1 unknown with addresses", raw: v1("UNKNOWN ffff::1 ffff::2 65535 65535"), rest: "\r\n"},
	{name: "v1 unknown with anything", raw: v1("UNKNOWN  \x00\xff TCP4 PROXY")},
	{name: "v1 unknown of 107 bytes", raw: v1("UNKNOWN " + strings.Repeat("x", 91))},
	{name: "v2 IPv4", raw: v2(proxied, tcp4, block4), from: from4, to: to4},
	{name: "v2 IPv4 and a request", raw: v2(proxied, tcp4, block4), rest: "GET / HTTP/1.1\r\n", from: from4, to: to4},
	{name: "v2 IPv4 and another header", raw: v2(proxied, tcp4, block4), rest: signature, from: from4, to: to4},
	{name: "v2 IPv6", raw: v2(proxied, tcp6, block6), from: from6, to: to6},
	{name: "v2 IPv4 as IPv6", raw: v2(proxied, tcp6, ip16("::ffff:192.0.2.1"), ip16("::ffff:198.51.100.2"), block6[32:]), from: from4, to: to4},
	{name: "v2 unix", raw: v2(proxied, unix, blockUnix)},
	{name: "v2 unix without names", raw: v2(proxied, unix, strings.Repeat("\x00", 216)), rest: "x"},
	{name: "v2 local", raw: v2(local, unspec)},
	{name: "v2 local and a request", raw: v2(local, unspec), rest: "GET /healthz HTTP/1.1\r\n"},
	{name: "v2 local with addresses", raw: v2(local, tcp4, block4)},
	{name: "v2 local of TCP without addresses", raw: v2(local, tcp6)},
	{name: "v2 local with less than addresses", raw: v2(local, tcp6, "abc")},
	{name: "v2 local with something", raw: v2(local, unspec, "\xff\xff\xff")},
	{name: "v2 local of datagrams", raw: v2(local, udp4, block4)},
	{name: "v2 local as long as may be", raw: v2(local, unspec, strings.Repeat("x", 520))},
	{name: "v2 with a TLV", raw: v2(proxied, tcp4, block4, tlv(1, "http/1.1")), from: from4, to: to4},
	{name: "v2 with an empty TLV", raw: v2(proxied, tcp4, block4, tlv(5, "")), from: from4, to: to4},
	{name: "v2 with unknown TLVs", raw: v2(proxied, tcp4, block4, tlv(0xee, "x"), tlv(0, "yy"), tlv(0xff, strings.Repeat("z", 300))), from: from4, to: to4},
	{name: "v2 with the same TLV twice", raw: v2(proxied, tcp6, block6, tlv(0xea, "x"), tlv(0xea, "x")), from: from6, to: to6},
	{name: "v2 with padding", raw: v2(proxied, tcp4, block4, tlv(4, strings.Repeat("\x00", 50))), from: from4, to: to4},
	{name: "v2 with the TLVs of an ssl frontend", raw: v2(proxied, tcp4, block4, tlv(2, "rt.example.com"), tlv(0x20, "\x01\x00\x00\x00\x00"+tlv(0x21, "TLSv1.3"))), from: from4, to: to4},
	{name: "v2 unix with a TLV", raw: v2(proxied, unix, blockUnix, tlv(0x30, "ns"))},
	{name: "v2 as long as may be", raw: v2(proxied, tcp4, block4, tlv(0xe0, strings.Repeat("x", 505))), from: from4, to: to4},
	{name: "v2 with a checksum", raw: summed(v2(proxied, tcp4, block4, noSum), 31), from: from4, to: to4},
	{name: "v2 with a checksum before others", raw: summed(v2(proxied, tcp4, block4, noSum, tlv(1, "h2")), 31), rest: "x", from: from4, to: to4},
	{name: "v2 with a checksum behind others", raw: summed(v2(proxied, tcp6, block6, tlv(1, "h2"), noSum), 60), from: from6, to: to6},
	{name: "v2 unix with a checksum", raw: summed(v2(proxied, unix, blockUnix, noSum), 235)},
	{name: "v2 local with a wrong checksum", raw: v2(local, unspec, noSum)},
}

// bad are no headers. Each verdict falls with the last byte of raw, not before.
var bad = []row{
	{name: "request", raw: "G", err: proxy.ErrAbsent},
	{name: "request that begins as a header does", raw: "PRI", err: proxy.ErrAbsent},
	{name: "POST", raw: "PO", err: proxy.ErrAbsent},
	{name: "TLS", raw: "\x16", err: proxy.ErrAbsent},
	{name: "NUL", raw: "\x00", err: proxy.ErrAbsent},
	{name: "small letters", raw: "p", err: proxy.ErrAbsent},
	{name: "space before it", raw: " ", err: proxy.ErrAbsent},
	{name: "v1 without a space", raw: "PROXYT", err: proxy.ErrAbsent},
	{name: "v1 with a tab", raw: "PROXY\t", err: proxy.ErrAbsent},
	{name: "v1 alone", raw: "PROXY\r", err: proxy.ErrAbsent},
	{name: "v2 signature with one bit off", raw: "\r\n\r\n\x00\r\nQUIU", err: proxy.ErrAbsent},
	{name: "v2 signature without NUL", raw: "\r\n\r\n\r", err: proxy.ErrAbsent},
	{name: "empty lines", raw: "\r\n\r\nG", err: proxy.ErrAbsent},

	{name: "v1 nothing", raw: "PROXY \r", err: proxy.ErrLine},
	{name: "v1 two spaces", raw: "PROXY  ", err: proxy.ErrLine},
	{name: "v1 UDP4", raw: "PROXY UD", err: proxy.ErrLine},
	{name: "v1 TCP5", raw: "PROXY TCP5", err: proxy.ErrLine},
	{name: "v1 TCP", raw: "PROXY TCP ", err: proxy.ErrLine},
	{name: "v1 tcp4", raw: "PROXY t", err: proxy.ErrLine},
	{name: "v1 TCP44", raw: "PROXY TCP44", err: proxy.ErrLine},
	{name: "v1 UNKNOWNS", raw: "PROXY UNKNOWNS", err: proxy.ErrLine},
	{name: "v1 UNKNOWN with a bare LF", raw: "PROXY UNKNOWN\n", err: proxy.ErrLine},
	{name: "v1 UNKNOWN with a later bare LF", raw: "PROXY UNKNOWN a\n", err: proxy.ErrLine},
	{name: "v1 UNKNOWN with a bare CR", raw: "PROXY UNKNOWN a\rb", err: proxy.ErrLine},
	{name: "v1 TCP4 alone", raw: "PROXY TCP4\r", err: proxy.ErrLine},
	{name: "v1 TCP4 two spaces", raw: "PROXY TCP4  ", err: proxy.ErrLine},
	{name: "v1 TCP4 name", raw: "PROXY TCP4 l", err: proxy.ErrLine},
	{name: "v1 TCP4 with IPv6", raw: "PROXY TCP4 2001", err: proxy.ErrLine},
	{name: "v1 TCP4 with ::", raw: "PROXY TCP4 :", err: proxy.ErrLine},
	{name: "v1 TCP4 number over 255", raw: "PROXY TCP4 192.256", err: proxy.ErrLine},
	{name: "v1 TCP4 leading zero", raw: "PROXY TCP4 192.00", err: proxy.ErrLine},
	{name: "v1 TCP4 hexadecimal", raw: "PROXY TCP4 0x", err: proxy.ErrLine},
	{name: "v1 TCP4 three numbers", raw: "PROXY TCP4 1.2.3 ", err: proxy.ErrLine},
	{name: "v1 TCP4 five numbers", raw: "PROXY TCP4 1.2.3.4.", err: proxy.ErrLine},
	{name: "v1 TCP4 empty number", raw: "PROXY TCP4 1..", err: proxy.ErrLine},
	{name: "v1 TCP4 sign", raw: "PROXY TCP4 -", err: proxy.ErrLine},
	{name: "v1 TCP4 port", raw: "PROXY TCP4 1.2.3.4:", err: proxy.ErrLine},
	{name: "v1 TCP4 NUL", raw: "PROXY TCP4 1.2.3.4\x00", err: proxy.ErrLine},
	{name: "v1 TCP4 one address", raw: "PROXY TCP4 1.2.3.4\r", err: proxy.ErrLine},
	{name: "v1 TCP4 no ports", raw: "PROXY TCP4 1.2.3.4 1.2.3.4\r", err: proxy.ErrLine},
	{name: "v1 TCP4 one port", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 1\r", err: proxy.ErrLine},
	{name: "v1 TCP4 port over 65535", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 65536", err: proxy.ErrLine},
	{name: "v1 TCP4 port of six digits", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 123456", err: proxy.ErrLine},
	{name: "v1 TCP4 port with leading zero", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 08", err: proxy.ErrLine},
	{name: "v1 TCP4 port with sign", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 +", err: proxy.ErrLine},
	{name: "v1 TCP4 port missing", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r", err: proxy.ErrLine},
	{name: "v1 TCP4 bare LF", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", err: proxy.ErrLine},
	{name: "v1 TCP4 bare CR", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rG", err: proxy.ErrLine},
	{name: "v1 TCP4 space at the end", raw: "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ", err: proxy.ErrLine},
	{name: "v1 TCP6 with IPv4", raw: "PROXY TCP6 1.", err: proxy.ErrLine},
	{name: "v1 TCP6 brackets", raw: "PROXY TCP6 [", err: proxy.ErrLine},
	{name: "v1 TCP6 zone", raw: "PROXY TCP6 fe80::1%", err: proxy.ErrLine},
	{name: "v1 TCP6 five digits", raw: "PROXY TCP6 1:00000", err: proxy.ErrLine},
	{name: "v1 TCP6 not a digit", raw: "PROXY TCP6 1:g", err: proxy.ErrLine},
	{name: "v1 TCP6 one colon first", raw: "PROXY TCP6 :1", err: proxy.ErrLine},
	{name: "v1 TCP6 one colon last", raw: "PROXY TCP6 1: ", err: proxy.ErrLine},
	{name: "v1 TCP6 three colons", raw: "PROXY TCP6 1:::", err: proxy.ErrLine},
	{name: "v1 TCP6 three colons first", raw: "PROXY TCP6 :::", err: proxy.ErrLine},
	{name: "v1 TCP6 :: twice", raw: "PROXY TCP6 1::2::", err: proxy.ErrLine},
	{name: "v1 TCP6 seven groups", raw: "PROXY TCP6 1:2:3:4:5:6:7 ", err: proxy.ErrLine},
	{name: "v1 TCP6 nine groups", raw: "PROXY TCP6 1:2:3:4:5:6:7:8:", err: proxy.ErrLine},
	{name: "v1 TCP6 eight groups and ::", raw: "PROXY TCP6 ::1:2:3:4:5:6:7:", err: proxy.ErrLine},
	{name: "v1 TCP6 :: for nothing", raw: "PROXY TCP6 1:2:3:4:5:6:7::8", err: proxy.ErrLine},
	{name: "v1 TCP6 decimals too early", raw: "PROXY TCP6 1:2:3:4:5:6.", err: proxy.ErrLine},
	{name: "v1 TCP6 decimals too late", raw: "PROXY TCP6 1:2:3:4:5:6:7:8.", err: proxy.ErrLine},
	{name: "v1 TCP6 decimals behind too much", raw: "PROXY TCP6 1::3:4:5:6:7:8.", err: proxy.ErrLine},
	{name: "v1 TCP6 decimals that are none", raw: "PROXY TCP6 ::ffff:1a.", err: proxy.ErrLine},
	{name: "v1 TCP6 decimals over 255", raw: "PROXY TCP6 ::ffff:256.", err: proxy.ErrLine},
	{name: "v1 TCP6 three decimals", raw: "PROXY TCP6 ::ffff:1.2.3 ", err: proxy.ErrLine},
	{name: "v1 TCP6 group behind decimals", raw: "PROXY TCP6 ::1.2.3.4:", err: proxy.ErrLine},
	{name: "v1 without an end", raw: "PROXY UNKNOWN " + strings.Repeat("x", 93), err: proxy.ErrLong},
	{name: "v1 of 108 bytes", raw: "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r", err: proxy.ErrLong},
	{name: "v1 addresses too long", raw: "PROXY TCP6 " + strings.Repeat("ffff:", 6) + "255.255.255.255 " + strings.Repeat("ffff:", 6) + "255.255.255.255 6553", err: proxy.ErrLong},

	{name: "v2 version 0", raw: signature + "\x01", err: proxy.ErrCommand},
	{name: "v2 version 1", raw: signature + "\x11", err: proxy.ErrCommand},
	{name: "v2 version 3", raw: signature + "\x31", err: proxy.ErrCommand},
	{name: "v2 command 2", raw: signature + "\x22", err: proxy.ErrCommand},
	{name: "v2 command 15", raw: signature + "\x2f", err: proxy.ErrCommand},
	{name: "v2 unspecified", raw: signature + "\x21\x00", err: proxy.ErrFamily},
	{name: "v2 UDP over IPv4", raw: signature + "\x21\x12", err: proxy.ErrFamily},
	{name: "v2 UDP over IPv6", raw: signature + "\x21\x22", err: proxy.ErrFamily},
	{name: "v2 unix datagrams", raw: signature + "\x21\x32", err: proxy.ErrFamily},
	{name: "v2 IPv4 without transport", raw: signature + "\x21\x10", err: proxy.ErrFamily},
	{name: "v2 transport without family", raw: signature + "\x21\x01", err: proxy.ErrFamily},
	{name: "v2 transport 3", raw: signature + "\x21\x13", err: proxy.ErrFamily},
	{name: "v2 family 4", raw: signature + "\x21\x41", err: proxy.ErrFamily},
	{name: "v2 local, family 4", raw: signature + "\x20\x41", err: proxy.ErrFamily},
	{name: "v2 local, transport 3", raw: signature + "\x20\x13", err: proxy.ErrFamily},
	{name: "v2 of 64 KiB", raw: v2n(proxied, tcp4, 0xff00, "")[:15], err: proxy.ErrLong},
	{name: "v2 a byte too long", raw: v2n(proxied, tcp4, 521, ""), err: proxy.ErrLong},
	{name: "v2 local too long", raw: v2n(local, unspec, 521, ""), err: proxy.ErrLong},
	{name: "v2 IPv4 without addresses", raw: v2n(proxied, tcp4, 0, ""), err: proxy.ErrLength},
	{name: "v2 IPv4 a byte too short", raw: v2n(proxied, tcp4, 11, ""), err: proxy.ErrLength},
	{name: "v2 IPv6 with IPv4's length", raw: v2n(proxied, tcp6, 12, ""), err: proxy.ErrLength},
	{name: "v2 unix with IPv6's length", raw: v2n(proxied, unix, 36, ""), err: proxy.ErrLength},
	{name: "v2 one byte behind the addresses", raw: v2n(proxied, tcp4, 13, ""), err: proxy.ErrLength},
	{name: "v2 two bytes behind the addresses", raw: v2n(proxied, tcp6, 38, ""), err: proxy.ErrLength},
	{name: "v2 TLV a byte too long", raw: v2n(proxied, tcp4, 12+3+5, block4+"\x01\x00\x06"), err: proxy.ErrLength},
	{name: "v2 TLV far too long", raw: v2n(proxied, tcp4, 12+3+5, block4+"\x01\x01"), err: proxy.ErrLength},
	{name: "v2 TLV of 64 KiB", raw: v2n(proxied, tcp4, 520, block4+"\x04\xff"), err: proxy.ErrLength},
	{name: "v2 TLV and one byte", raw: v2n(proxied, tcp4, 12+3+5, block4+"\x01\x00\x04"), err: proxy.ErrLength},
	{name: "v2 TLV and two bytes", raw: v2n(proxied, tcp4, 12+3+5, block4+"\x01\x00\x03"), err: proxy.ErrLength},
	{name: "v2 second TLV too long", raw: v2n(proxied, tcp4, 12+4+4, block4+tlv(1, "x")+"\x02\x00\x02"), err: proxy.ErrLength},
	{name: "v2 checksum of 3 bytes", raw: v2n(proxied, tcp4, 12+6, block4+"\x03"), err: proxy.ErrLength},
	{name: "v2 checksum of 5 bytes", raw: v2n(proxied, tcp4, 12+20, block4+"\x03\x00\x05"), err: proxy.ErrLength},
	{name: "v2 checksum of 256 bytes", raw: v2n(proxied, tcp4, 12+300, block4+"\x03\x01"), err: proxy.ErrLength},
	{name: "v2 checksum and one byte", raw: v2n(proxied, tcp4, 12+8, block4+"\x03"), err: proxy.ErrLength},
	{name: "v2 two checksums", raw: v2n(proxied, tcp4, 12+14, block4+noSum+"\x03"), err: proxy.ErrLength},
	{name: "v2 checksum of zeros", raw: v2(proxied, tcp4, block4, noSum), err: proxy.ErrChecksum},
	{name: "v2 checksum of another port", raw: strings.Replace(summed(v2(proxied, tcp4, block4, noSum), 31), "\x01\xbb", "\x01\xba", 1), err: proxy.ErrChecksum},
	{name: "v2 checksum of another padding", raw: strings.TrimSuffix(summed(v2(proxied, tcp6, block6, noSum, tlv(4, "\x00")), 55), "\x00") + "\x01", err: proxy.ErrChecksum},
}
