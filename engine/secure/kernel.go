package secure

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"syscall"

	"ticketgate/engine/reactor"
)

// Handing records to the kernel. It needs the keys and how many records each has sealed, in a moment when no byte is half
// read or half sent:
//
//	keys   crypto/tls tells the traffic secrets to a KeyLogWriter; each handshake has its own, in a Config of its own. They
//	       are never written anywhere, and zeroed when the kernel has them or never will
//	sent   session tickets (WrapSession is called for each), then the records that wire.Write has counted
//	got    the records that Read was given, one at a time; one without content means that we are out of step, and stay
//
// That moment is when all that came is decoded and all that was written has left: usually right behind the handshake, or behind
// the first words that came with its end, before the handler sees them.

// A suite is what a TLS 1.3 cipher suite is called by crypto/tls and by the kernel (linux/tls.h).
type suite struct {
	id     uint16
	cipher uint16 // TLS_CIPHER_*
	key    int    // bytes
	salt   int    // bytes of the IV that the kernel calls salt; only AES-GCM has one
	hash   func() hash.Hash
}

var suites = [...]suite{
	{tls.TLS_AES_128_GCM_SHA256, 51, 16, 4, sha256.New},
	{tls.TLS_AES_256_GCM_SHA384, 52, 32, 4, sha512.New384},
	{tls.TLS_CHACHA20_POLY1305_SHA256, 54, 32, 0, sha256.New},
}

const (
	allSuites = 1<<len(suites) - 1 // Server.kernel at first
	ivLen     = 12
	secretMax = 48              // SHA-384
	ticketMax = recordMax - 512 // a longer one may need two records
)

// secrets are what one handshake has told of itself.
type secrets struct {
	client, server []byte // traffic secrets 0; nil when the version is not 1.3 or the kernel is not wanted
	tickets        uint64
}

// forClient is GetConfigForClient: a Config for one handshake that may go to the kernel, else nil, so that no copy is kept.
func (s *Server) forClient(base *tls.Config, info *tls.ClientHelloInfo) *tls.Config {
	k := info.Conn.(*wire).h.secrets
	if !s.Offloads() || !slices.Contains(info.SupportedVersions, tls.VersionTLS13) {
		return nil
	}
	own := base.Clone()
	own.GetConfigForClient = nil
	own.KeyLogWriter = k
	own.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		ticket, err := base.EncryptTicket(state, session) // base has the ticket keys, and renews them
		if k.tickets++; len(ticket) > ticketMax {
			k.wipe()
		}
		return ticket, err
	}
	return own
}

// Write takes a line of the key log: label, client random, secret, each in hex but the first. Only the goroutine of the
// handshake calls it.
func (k *secrets) Write(line []byte) (int, error) {
	fields := bytes.Fields(line)
	if len(fields) != 3 || hex.DecodedLen(len(fields[2])) > secretMax {
		return len(line), nil
	}
	var to *[]byte
	switch string(fields[0]) {
	case "CLIENT_TRAFFIC_SECRET_0":
		to = &k.client
	case "SERVER_TRAFFIC_SECRET_0":
		to = &k.server
	default:
		return len(line), nil
	}
	secret := make([]byte, hex.DecodedLen(len(fields[2])))
	if _, err := hex.Decode(secret, fields[2]); err != nil {
		return 0, err
	}
	*to = secret
	return len(line), nil
}

func (k *secrets) wipe() {
	clear(k.client)
	clear(k.server)
	*k = secrets{}
}

// An offload waits for the moment when the kernel can take over.
type offload struct {
	suite  int // index into suites
	tx, rx []byte
	got    uint64 // records opened
}

// offload derives the keys, and wipes the secrets. nil: the connection stays in this process.
func (k *secrets) offload(state *tls.ConnectionState) *offload {
	defer k.wipe()
	i := slices.IndexFunc(suites[:], func(s suite) bool { return s.id == state.CipherSuite })
	if state.Version != tls.VersionTLS13 || i < 0 || k.client == nil || k.server == nil {
		return nil
	}
	tx, err1 := suites[i].info(k.server, k.tickets)
	rx, err2 := suites[i].info(k.client, 0)
	if err1 != nil || err2 != nil { // of a hash that FIPS mode does not allow
		return nil
	}
	return &offload{suite: i, tx: tx, rx: rx}
}

// info is a struct tls12_crypto_info_* of linux/tls.h: version, cipher, iv, key, salt, record number.
func (s *suite) info(secret []byte, number uint64) ([]byte, error) {
	key, err1 := expandLabel(s.hash, secret, "key", s.key)
	iv, err2 := expandLabel(s.hash, secret, "iv", ivLen)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	b := make([]byte, 0, 4+ivLen+s.key+8)
	b = binary.NativeEndian.AppendUint16(b, tls.VersionTLS13)
	b = binary.NativeEndian.AppendUint16(b, s.cipher)
	b = append(b, iv[s.salt:]...)
	b = append(b, key...)
	b = append(b, iv[:s.salt]...)
	b = binary.BigEndian.AppendUint64(b, number)
	clear(key)
	return b, nil
}

// expandLabel is HKDF-Expand-Label with an empty context (RFC 8446 7.1).
func expandLabel(h func() hash.Hash, secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	return hkdf.Expand(h, secret, string(append(info, 0)), n)
}

// number is where the record number stands in an info.
func number(info []byte) []byte { return info[len(info)-8:] }

func (o *offload) wipe() {
	clear(o.tx)
	clear(o.rx)
}

// forget gives the kernel up for this connection.
func (c *conn) forget() {
	if c.offload != nil {
		c.offload.wipe()
		c.offload = nil
	}
}

// handOver gives the socket to the kernel if this is the moment. All that came has been decoded.
func (c *conn) handOver() {
	o := c.offload
	if o == nil || c.l.Queued(c.id) != 0 {
		return
	}
	if !c.s.takes(o.suite) || !c.l.Peer(c.id).IsValid() { // a unix socket has no TLS in the kernel
		c.forget()
		return
	}
	binary.BigEndian.PutUint64(number(o.tx), binary.BigEndian.Uint64(number(o.tx))+c.sent)
	binary.BigEndian.PutUint64(number(o.rx), o.got)
	err := c.s.toKernel(c.l, c.id, o.tx, o.rx)
	c.forget()
	switch {
	case err == nil:
		c.s.n.user.Add(-1)
		c.s.n.kernel.Add(1)
		c.leave()
	case errors.Is(err, reactor.ErrNoOffload):
		c.s.refused(o.suite, err)
	default: // half of it is the kernel's: what we would send is not what the client expects
		c.s.log("secure: the kernel took TLS over by half", "error", err)
		c.l.Abort(c.id)
	}
}

func (s *Server) takes(suite int) bool { return s.kernel.Load()&(1<<suite) != 0 }

// refused remembers what the kernel cannot do, so that it is not asked again. ENOENT is a missing module: that of TLS, or of
// the cipher, but TLS's brings AES-GCM with it. EINVAL is a cipher that it does not know. Other errors are of this socket alone:
// ENOTCONN of one whose client has already sent FIN.
func (s *Server) refused(suite int, err error) {
	lost := uint32(1 << suite)
	switch {
	case errors.Is(err, syscall.ENOENT) && suites[suite].salt > 0:
		lost = allSuites
	case !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EINVAL):
		return
	}
	if s.kernel.And(^lost)&lost != 0 {
		name := tls.CipherSuiteName(suites[suite].id)
		why := fmt.Errorf("%s: %w", name, err)
		s.refusal.Store(&why)
		s.log("secure: TLS stays in this process", "cipher", name, "error", err)
	}
}
