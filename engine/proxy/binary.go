package proxy

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Version 2 (section 2.2), numbers in network order:
//
//	 0  signature, 12 bytes
//	12  version 2 << 4 | command     0 LOCAL, 1 PROXY
//	13  family << 4 | transport      1 IPv4, 2 IPv6, 3 unix | 1 stream, 2 datagram
//	14  length of what follows, 2 bytes
//	16  source address, destination address, source port, destination port; of unix sockets two names of 108 bytes
//	..  TLVs: type, length of the value in 2 bytes, value
const (
	fixed = 16 // bytes before the addresses

	commandLocal = 0x20
	commandProxy = 0x21

	tcp4       = 0x11
	tcp6       = 0x21
	unixStream = 0x31

	typeCRC32C = 0x03
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeros      [4]byte // here, because on the stack it would escape
)

// version2 parses a version 2 header, of which in has the signature.
func version2(in []byte) (h Header, n int, err error) {
	end, err := extent(in)
	switch {
	case err != nil || end == 0:
		return Header{}, 0, err
	case in[12] == commandLocal: // 2.2: what follows is skipped unseen, be it what it may
		if len(in) < end {
			return Header{}, 0, nil
		}
		return Header{Version: 2}, end, nil
	}
	sum, err := checksumAt(in, fixed+blockLen(in[13]), end)
	switch {
	case err != nil || len(in) < end:
		return Header{}, 0, err
	case sum != 0 && checksum(in[:end], sum) != binary.BigEndian.Uint32(in[sum:]):
		return Header{}, 0, ErrChecksum
	}
	h.Version = 2
	switch b := in[fixed:]; in[13] {
	case tcp4:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:]))
		h.Dest = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[10:]))
	case tcp6:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:]))
		h.Dest = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:])).Unmap(), binary.BigEndian.Uint16(b[34:]))
	}
	return h, end, nil
}

// extent is how long the whole header is, once its fixed part is there; 0 before.
func extent(in []byte) (end int, err error) {
	if len(in) > 12 && in[12] != commandLocal && in[12] != commandProxy {
		return 0, ErrCommand
	}
	if len(in) > 13 {
		// 2.2: other values must be refused; there is no word of LOCAL being excepted.
		if size := blockLen(in[13]); size < 0 || in[12] == commandProxy && in[13] != tcp4 && in[13] != tcp6 && in[13] != unixStream {
			return 0, ErrFamily
		}
	}
	if len(in) > 14 && fixed+int(in[14])<<8 > MaxHeader {
		return 0, ErrLong
	}
	if len(in) < fixed {
		return 0, nil
	}
	size := int(binary.BigEndian.Uint16(in[14:]))
	switch {
	case fixed+size > MaxHeader:
		return 0, ErrLong
	case in[12] == commandProxy && size < blockLen(in[13]):
		return 0, ErrLength
	}
	return fixed + size, nil
}

// blockLen is how many bytes the addresses of a family and transport have; -1: there is no such thing.
func blockLen(family byte) int {
	switch family {
	case 0x00:
		return 0
	case tcp4, 0x12:
		return 12
	case tcp6, 0x22:
		return 36
	case unixStream, 0x32:
		return 216
	}
	return -1
}

// checksumAt goes through the TLVs of in[at:end], of which the last bytes may still be to come, and returns where the value
// of the checksum is; 0: there is none. What TLVs mean is of no interest, but they must fill the header to its end.
func checksumAt(in []byte, at, end int) (sum int, err error) {
	for at < end {
		rest := end - at - 3 // for the value of this one, and for others
		switch {
		case rest < 0:
			return 0, ErrLength
		case len(in) <= at:
			return sum, nil
		case in[at] == typeCRC32C && (sum != 0 || rest != 4 && rest < 4+3):
			return 0, ErrLength
		case len(in) == at+1:
			return sum, nil
		}
		size := int(in[at+1]) << 8
		if len(in) > at+2 {
			size |= int(in[at+2])
		}
		switch {
		case size > rest || in[at] == typeCRC32C && (size > 4 || len(in) > at+2 && size != 4):
			return 0, ErrLength
		case len(in) == at+2:
			return sum, nil
		case in[at] == typeCRC32C:
			sum = at + 3
		}
		at += 3 + size
	}
	return sum, nil
}

// checksum is that of the header with zeros for the four bytes at sum (section 2.2.3).
func checksum(header []byte, sum int) uint32 {
	c := crc32.Update(0, castagnoli, header[:sum])
	c = crc32.Update(c, castagnoli, zeros[:])
	return crc32.Update(c, castagnoli, header[sum+4:])
}
