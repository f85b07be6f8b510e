package config

import (
	"fmt"
	"strconv"
)

// Replicas is a number of replicas, or ReplicasAuto.
type Replicas int

// ReplicasAuto is written auto.
const ReplicasAuto Replicas = -1

// replicasMax is as many as a primary can be expected to have.
const replicasMax = 8

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Replicas) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*r = ReplicasAuto
		return nil
	}
	n, err := strconv.ParseUint(string(text), 10, 8)
	if err != nil || n > replicasMax {
		return fmt.Errorf("want auto or a number from 0 to %d", replicasMax)
	}
	*r = Replicas(n)
	return nil
}

// RenewalReplicas is how many replicas of the store must have a node's renewal before it counts. ReplicasAuto is none where
// store.url names one server by itself, and 1 with store.addresses. An answer that no replica has may be that of a primary that
// has been replaced; to be safe from that with more than two replicas, it is all but one of them.
func (s *Store) RenewalReplicas() int {
	if s.Replicas == ReplicasAuto && len(s.Addresses) > 0 {
		return 1
	}
	return int(max(s.Replicas, 0))
}
