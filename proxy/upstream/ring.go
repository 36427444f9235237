package upstream

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
)

// point is a place on the ring of hashes and the peers that own the arc before
// it, by their site.
type point struct {
	hash uint32
	site int32
}

// pointsPerWeight is the number of points of a peer of weight 1.
const pointsPerWeight = 160

// points builds the ring: a chain of checksums of host, NUL, port and the
// previous checksum (ngx_http_upstream_update_chash). Peers of one server share
// their points.
func points(peers []*Peer, total int) []point {
	ps := make([]point, 0, total*pointsPerWeight)
	for _, p := range peers {
		host, port := hostPort(p.Server)
		base := checksum([]byte(host + "\x00" + port))
		var previous [4]byte
		for range p.Weight * pointsPerWeight {
			hash := update(base, previous[:])
			ps = append(ps, point{hash, int32(p.site)})
			binary.LittleEndian.PutUint32(previous[:], hash)
		}
	}
	slices.SortStableFunc(ps, func(x, y point) int { return cmp.Compare(x.hash, y.hash) })
	return slices.CompactFunc(ps, func(x, y point) bool { return x.hash == y.hash })
}

// hostPort splits what server was given as nginx does for the ring: digits
// after the last colon are the port.
func hostPort(server string) (host, port string) {
	if len(server) >= 5 && strings.EqualFold(server[:5], "unix:") {
		return server[5:], ""
	}
	i := strings.LastIndexByte(server, ':')
	if i < 0 || strings.Trim(server[i+1:], "0123456789") != "" {
		return server, ""
	}
	return server[:i], server[i+1:]
}

// findPoint returns the index of the first point not below hash, which is
// len(ps) for hashes above all.
func findPoint(ps []point, hash uint32) uint32 {
	i, _ := slices.BinarySearchFunc(ps, hash, func(p point, h uint32) int { return cmp.Compare(p.hash, h) })
	return uint32(i)
}

// consistent walks the ring from the key's point. Several peers of one server
// take turns (ngx_http_upstream_get_chash_peer).
func (a *Attempt) consistent(now int64) int {
	ps := a.ring.points
	if len(a.key) == 0 || len(ps) == 0 {
		return -1
	}
	for {
		site := int(ps[a.hash%uint32(len(ps))].site)
		best, total := -1, 0
		for i := site; i < len(a.ring.peers); i++ {
			p := a.ring.peers[i]
			if p.site != site || !a.free(i, now) {
				continue
			}
			total = p.join(total)
			if best < 0 || p.current > a.ring.peers[best].current {
				best = i
			}
		}
		if best >= 0 {
			a.ring.peers[best].current -= total
			return best
		}
		a.hash++
		if a.missed++; a.missed > maxMissed {
			return -1
		}
	}
}

func checksum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

func update(sum uint32, b []byte) uint32 { return crc32.Update(sum, crc32.IEEETable, b) }
