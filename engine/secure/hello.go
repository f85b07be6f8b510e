package secure

// The collector looks at the first flight as it arrives and says as early as the byte that decides it whether a ClientHello
// is under way, and when it is whole. It reads no more of it than its length: the rest is crypto/tls's. So half a hello costs
// its own bytes and nothing else.
//
//	record     22 | 3 | minor | length (2) | fragment ...            RFC 8446 5.1
//	ClientHello 1 | length (3) | ...         spread over fragments   RFC 8446 4
const (
	recordHeader = 5
	recordMax    = 16 << 10 // of a record without protection
	helloHeader  = 4
	helloMax     = 16 << 10 // bytes on the wire until the hello is whole, record headers included

	typeAlert     = 21
	typeHandshake = 22
	typeHello     = 1
	majorVersion  = 3
)

// Alerts that are sent before crypto/tls has anything to say (RFC 8446 6.2), or looked for in what it says.
const (
	alertUnexpected = 10
	alertOverflow   = 22
	alertFailure    = 40
	alertDecode     = 50
	alertVersion    = 70
	alertInsecure   = 71
	alertInternal   = 80
	alertNoName     = 112 // also: no certificate
	alertNoProtocol = 120
)

// A bad is a hello that is none: the alert that says so, and the text for the log. It quotes nothing that the peer sent.
type bad struct {
	alert byte
	text  string
}

func (b *bad) Error() string { return "secure: " + b.text }

var (
	errNotTLS      = &bad{alertUnexpected, "the first bytes are no TLS handshake record"}
	errNotHello    = &bad{alertUnexpected, "the first message is no ClientHello"}
	errRecordEmpty = &bad{alertDecode, "a handshake record without content"}
	errRecordLong  = &bad{alertOverflow, "a record of more than 16 KiB"}
	errHelloLong   = &bad{alertOverflow, "a ClientHello of more than 16 KiB"}
)

// A hello is how far the collector has come. All of it lies below helloMax.
type hello struct {
	at   uint16 // where the record under way begins
	got  uint16 // bytes of the message in the records before it
	want uint16 // the message's length without its header, as far as that has come
}

// look is given all that has arrived so far, each time with more behind it. whole: the ClientHello is there to its last byte,
// and perhaps something behind it.
func (h *hello) look(in []byte) (whole bool, err *bad) {
	for {
		head := in[h.at:]
		switch {
		case len(head) > 0 && head[0] != typeHandshake, len(head) > 1 && head[1] != majorVersion:
			return false, errNotTLS
		case len(head) < recordHeader:
			return false, nil
		}
		n := recordLen(head) - recordHeader
		switch {
		case n == 0: // RFC 8446 5.1: handshake fragments are not empty
			return false, errRecordEmpty
		case n > recordMax:
			return false, errRecordLong
		case int(h.at)+recordHeader+n > helloMax:
			return false, errHelloLong
		}
		body := head[recordHeader:min(len(head), recordHeader+n)]
		if err := h.start(body); err != nil || len(body) < n {
			return false, err
		}
		h.got += uint16(n)
		h.at += uint16(recordHeader + n)
		if h.got >= helloHeader && h.got-helloHeader >= h.want {
			return true, nil
		}
	}
}

// start reads what body, the record under way, has of the message's header. It may be called again with more of the same.
func (h *hello) start(body []byte) *bad {
	for i := int(h.got); i < helloHeader && i-int(h.got) < len(body); i++ {
		b := body[i-int(h.got)]
		switch i {
		case 0:
			if b != typeHello {
				return errNotHello
			}
		case 1:
			if b != 0 {
				return errHelloLong
			}
		case 2:
			if b >= helloMax>>8 {
				return errHelloLong
			}
			h.want = uint16(b) << 8
		case 3:
			h.want = h.want&0xff00 | uint16(b)
		}
	}
	return nil
}

// alertRecord is a fatal alert without protection: before keys are agreed on there is none.
func alertRecord(code byte) []byte {
	const fatal = 2
	return []byte{typeAlert, majorVersion, 3, 0, 2, fatal, code}
}
