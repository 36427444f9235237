package proxy

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Sessions over a restart. What lets clients come back is handed to the process
// that follows when this one ends, and not before: on disk it would let somebody
// who has it read what was recorded of connections with TLS 1.2.
//
// Unlike nginx, which forgets all sessions but for ssl_session_ticket_key.

// keptZone is a session zone, written down.
type keptZone struct {
	Name     string        `json:"name"`
	Keyed    time.Time     `json:"keyed,omitzero"`
	Keys     [][]byte      `json:"keys,omitempty"` // name and key, the one that encrypts first
	Sessions []keptSession `json:"sessions,omitempty"`
}

type keptSession struct {
	ID      []byte    `json:"id"`
	State   []byte    `json:"state"`
	Expires time.Time `json:"expires"`
}

// mostKept bounds what is written down of the sessions of all zones.
const mostKept = 8 << 20

// Sessions writes down what lets clients resume their sessions; nil is nothing.
// It is as secret as a private key.
func (r *Runtime) Sessions() []byte {
	s := &r.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	var zones []keptZone
	room := mostKept
	for _, name := range slices.Sorted(maps.Keys(s.zones)) {
		if z := s.zones[name].keep(name, &room); len(z.Keys) > 0 || len(z.Sessions) > 0 {
			zones = append(zones, z)
		}
	}
	if len(zones) == 0 {
		return nil
	}
	text, err := json.Marshal(zones)
	if err != nil {
		return nil
	}
	return text
}

// keep writes a zone down, its newest sessions if there is not room for all.
func (z *sessionZone) keep(name string, room *int) keptZone {
	z.mu.Lock()
	defer z.mu.Unlock()
	k := keptZone{Name: name}
	if z.keys != nil {
		k.Keyed = z.keyed
		for i := range z.keys.all {
			k.Keys = append(k.Keys, slices.Concat(z.keys.all[i].name[:], z.keys.all[i].key[:]))
		}
	}
	now := time.Now()
	for e := z.last; e != nil; e = e.prev {
		if *room -= len(e.state); *room < 0 {
			break
		}
		if now.Before(e.expires) {
			k.Sessions = append(k.Sessions, keptSession{ID: e.id[:], State: e.state, Expires: e.expires})
		}
	}
	slices.Reverse(k.Sessions)
	return k
}

// RestoreSessions takes over what another process has written down by Sessions.
// What cannot be read is passed over.
func (r *Runtime) RestoreSessions(text []byte) {
	var zones []keptZone
	if len(text) == 0 || json.Unmarshal(text, &zones) != nil {
		return
	}
	for i := range zones {
		z := r.sessions.zone(zones[i].Name, mostKept) // the limit comes with its first use
		z.restore(&zones[i])
	}
}

func (z *sessionZone) restore(k *keptZone) {
	now := time.Now()
	for _, s := range k.Sessions {
		if len(s.ID) == len(sessionID{}) && now.Before(s.Expires) {
			z.store(sessionID(s.ID), s.State, s.Expires)
		}
	}
	var keys []ticketKey
	for _, b := range k.Keys {
		if len(b) != 16+32 {
			return
		}
		keys = append(keys, ticketKey{name: [16]byte(b), key: [32]byte(b[16:])})
	}
	if len(keys) == 0 || k.Keyed.After(now) {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.keys, z.keyed = newTicketKeys(keys), k.Keyed
}
