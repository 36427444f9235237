package proxy

import (
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Names in certificates as OpenSSL writes them.

// attribute is one part of a name.
type attribute struct {
	oid   string
	value asn1.RawValue
	set   int // parts with the same number belong together
}

// attributes takes a name apart; of one that is malformed, what comes before the
// fault.
func attributes(der []byte) []attribute {
	var sets []asn1.RawValue
	if _, err := asn1.Unmarshal(der, &sets); err != nil {
		return nil
	}
	var out []attribute
	for i, set := range sets {
		for rest := set.Bytes; len(rest) > 0; {
			var pair struct {
				OID   asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &pair); err != nil {
				return out
			}
			out = append(out, attribute{pair.OID.String(), pair.Value, i})
		}
	}
	return out
}

// appendName appends a name as RFC 2253 has it: the last part first
// (XN_FLAG_RFC2253).
func appendName(dst, der []byte) []byte {
	before := -1
	for _, a := range slices.Backward(attributes(der)) {
		switch before {
		case -1:
		case a.set:
			dst = append(dst, '+')
		default:
			dst = append(dst, ',')
		}
		before = a.set
		name, known := attributeNames[a.oid]
		text, readable := a.utf8()
		if !known {
			name = a.oid
		}
		dst = append(append(dst, name...), '=')
		if !known || !readable {
			dst = append(dst, '#')
			dst = append(dst, strings.ToUpper(hex.EncodeToString(a.value.FullBytes))...)
			continue
		}
		dst = appendQuotedAttribute(dst, text)
	}
	return dst
}

// utf8 gives the value of a part; false for a type that is no text.
func (a *attribute) utf8() (string, bool) {
	b := a.value.Bytes
	if a.value.Class != asn1.ClassUniversal {
		return "", false
	}
	switch a.value.Tag {
	case asn1.TagUTF8String:
		return string(b), utf8.Valid(b)
	case asn1.TagNumericString, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String, asn1.TagUTCTime, asn1.TagGeneralizedTime, tagVisibleString:
		out := make([]rune, len(b)) // OpenSSL takes all of these for Latin-1
		for i, c := range b {
			out[i] = rune(c)
		}
		return string(out), true
	case asn1.TagBMPString:
		if len(b)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(b)/2)
		for i := range units {
			units[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
		}
		return string(utf16.Decode(units)), true
	case tagUniversalString:
		if len(b)%4 != 0 {
			return "", false
		}
		out := make([]rune, len(b)/4)
		for i := range out {
			out[i] = rune(b[4*i])<<24 | rune(b[4*i+1])<<16 | rune(b[4*i+2])<<8 | rune(b[4*i+3])
		}
		return string(out), true
	}
	return "", false
}

// Types of ASN.1 that its Go package does not name.
const (
	tagVisibleString   = 26
	tagUniversalString = 28
)

// appendQuotedAttribute escapes what has a meaning in a name, controls, and all
// that is not ASCII.
func appendQuotedAttribute(dst []byte, text string) []byte {
	for i := range len(text) {
		c := text[i]
		switch {
		case c < ' ' || c >= 0x7f:
			dst = append(dst, '\\', hexCapitals[c>>4], hexCapitals[c&15])
			continue
		case strings.IndexByte(`,+"\<>;`, c) >= 0,
			i == 0 && (c == '#' || c == ' '),
			i == len(text)-1 && c == ' ':
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return dst
}

const hexCapitals = "0123456789ABCDEF"

// appendNameOnLine appends a name in the old form, with slashes
// (X509_NAME_oneline).
func appendNameOnLine(dst, der []byte) []byte {
	before := -1
	for _, a := range attributes(der) {
		name, known := attributeNames[a.oid]
		if !known {
			name = a.oid
		}
		if a.set == before {
			dst = append(dst, '+')
		} else {
			dst = append(dst, '/')
		}
		before = a.set
		dst = append(append(dst, name...), '=')
		for _, c := range a.value.Bytes {
			switch {
			case c < ' ' || c > '~':
				dst = append(dst, '\\', 'x', hexCapitals[c>>4], hexCapitals[c&15])
			case c == '/' || c == '+':
				dst = append(dst, '\\', c)
			default:
				dst = append(dst, c)
			}
		}
	}
	return dst
}

// attributeNames are OpenSSL's short names.
var attributeNames = map[string]string{
	"2.5.4.3":  "CN",
	"2.5.4.4":  "SN",
	"2.5.4.5":  "serialNumber",
	"2.5.4.6":  "C",
	"2.5.4.7":  "L",
	"2.5.4.8":  "ST",
	"2.5.4.9":  "street",
	"2.5.4.10": "O",
	"2.5.4.11": "OU",
	"2.5.4.12": "title",
	"2.5.4.13": "description",
	"2.5.4.15": "businessCategory",
	"2.5.4.16": "postalAddress",
	"2.5.4.17": "postalCode",
	"2.5.4.18": "postOfficeBox",
	"2.5.4.19": "physicalDeliveryOfficeName",
	"2.5.4.20": "telephoneNumber",
	"2.5.4.41": "name",
	"2.5.4.42": "GN",
	"2.5.4.43": "initials",
	"2.5.4.44": "generationQualifier",
	"2.5.4.45": "x500UniqueIdentifier",
	"2.5.4.46": "dnQualifier",
	"2.5.4.51": "houseIdentifier",
	"2.5.4.65": "pseudonym",
	"2.5.4.72": "role",
	"2.5.4.97": "organizationIdentifier",

	"0.9.2342.19200300.100.1.1":  "UID",
	"0.9.2342.19200300.100.1.3":  "mail",
	"0.9.2342.19200300.100.1.25": "DC",
	"1.2.840.113549.1.9.1":       "emailAddress",
	"1.2.840.113549.1.9.2":       "unstructuredName",
	"1.2.840.113549.1.9.8":       "unstructuredAddress",
	"1.3.6.1.4.1.311.60.2.1.1":   "jurisdictionL",
	"1.3.6.1.4.1.311.60.2.1.2":   "jurisdictionST",
	"1.3.6.1.4.1.311.60.2.1.3":   "jurisdictionC",
}
