package engine

import "unsafe"

// SessionSize is what a socket costs the engine beside the reactor's row.
const SessionSize = unsafe.Sizeof(session{})
