package reactor

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TLS in the kernel (Documentation/networking/tls.rst): after the handshake it seals what is written and opens what is
// read. Nothing of it stays in this process.

// Of linux/tls.h; x/sys has only the level.
const (
	tlsTX            = 1
	tlsRX            = 2
	tlsSetRecordType = 1
	tlsGetRecordType = 2
)

// offload gives the kernel the keys.
func (k *linux) offload(fd int, tx, rx []byte) error {
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, "tls"); err != nil {
		return fmt.Errorf("%w: %w", ErrNoOffload, err) // ENOENT: no such module; EEXIST, ENOTSUPP: not this socket
	}
	if err := unix.SetsockoptString(fd, unix.SOL_TLS, tlsTX, string(tx)); err != nil {
		return fmt.Errorf("%w: cipher: %w", ErrNoOffload, err) // until it has keys the socket is as it was
	}
	if err := unix.SetsockoptString(fd, unix.SOL_TLS, tlsRX, string(rx)); err != nil {
		return fmt.Errorf("TLS_RX: %w", err)
	}
	return nil
}

// record reads one record of whatever type, which comes as control data.
func (k *linux) record(fd int, p []byte) (kind byte, n int, errno syscall.Errno) {
	var control [unix.SizeofCmsghdr + 8]byte
	n, size, _, _, err := unix.Recvmsg(fd, p, control[:], unix.MSG_DONTWAIT)
	if err != nil {
		if e, ok := err.(syscall.Errno); ok { //nolint:errorlint // x/sys returns it bare
			return 0, 0, e
		}
		return 0, 0, syscall.EIO
	}
	list, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil {
		return 0, 0, syscall.EIO
	}
	for _, m := range list {
		if m.Header.Level == unix.SOL_TLS && m.Header.Type == tlsGetRecordType && len(m.Data) > 0 {
			return m.Data[0], n, 0
		}
	}
	return recordData, n, 0
}

// notify sends close_notify, a warning (RFC 8446 6.1). A full socket loses it: the peer sees FIN alone.
func (k *linux) notify(fd int) {
	control := make([]byte, unix.CmsgSpace(1))
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(control)))
	h.Level, h.Type = unix.SOL_TLS, tlsSetRecordType
	h.SetLen(unix.CmsgLen(1))
	control[unix.CmsgLen(0)] = recordAlert
	_ = unix.Sendmsg(fd, []byte{1, alertClose}, control, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}
