package proxy

import (
	"net/netip"
	"slices"
)

// What others may ask of a table.

// SiteInfo is what a server block serves, for messages.
type SiteInfo struct {
	Names  []string
	Listen []ListenInfo
}

// ListenInfo is one address of a server.
type ListenInfo struct {
	Address netip.AddrPort
	TLS     bool
}

// Sites lists the servers in the order of the file.
func (t *Table) Sites() []SiteInfo {
	var out []SiteInfo
	for _, s := range t.Servers {
		info := SiteInfo{}
		for _, n := range s.Names {
			info.Names = append(info.Names, n.text)
		}
		for _, l := range s.listens {
			if l.network != "unix" && !l.options.quic {
				info.Listen = append(info.Listen, ListenInfo{l.address, l.options.ssl})
			}
		}
		out = append(out, info)
	}
	return out
}

// UpstreamAddresses lists the addresses that requests may be passed to.
func (t *Table) UpstreamAddresses() []netip.AddrPort {
	var out []netip.AddrPort
	for _, g := range t.allGroups() {
		for _, address := range g.addresses() {
			if a, err := netip.ParseAddrPort(address); err == nil && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// VariableInfo is a variable that the server itself defines.
type VariableInfo struct {
	Name   string
	Module string
	Prefix bool // Name is followed by more: $http_NAME
	Set    bool // the set directive may assign it
}

// Variables lists the variables that the server itself defines.
func Variables() []VariableInfo {
	var out []VariableInfo
	for _, m := range modules() {
		for i := range m.Variables {
			v := &m.Variables[i]
			out = append(out, VariableInfo{v.Name, m.Name, v.Prefix, v.Set != nil})
		}
	}
	return out
}
