package proxy

import "strings"

// The oldest scheme of crypt(3): DES with a salt that swaps bits. The tables are
// those of FIPS 46-3; bits are counted from 0, the highest first.

// desTables are the permutations of DES: each number says which bit comes next.
type desTables struct {
	initial, final, expand, permute, choice1, choice2 []byte
	shifts                                            string
	boxes                                             [8]string // four rows of sixteen numbers, in hexadecimal
}

func desStandard() *desTables {
	return &desTables{
		initial: []byte{
			57, 49, 41, 33, 25, 17, 9, 1, 59, 51, 43, 35, 27, 19, 11, 3, 61, 53, 45, 37, 29, 21, 13, 5, 63, 55, 47, 39, 31, 23, 15, 7,
			56, 48, 40, 32, 24, 16, 8, 0, 58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4, 62, 54, 46, 38, 30, 22, 14, 6,
		},
		final: []byte{
			39, 7, 47, 15, 55, 23, 63, 31, 38, 6, 46, 14, 54, 22, 62, 30, 37, 5, 45, 13, 53, 21, 61, 29, 36, 4, 44, 12, 52, 20, 60, 28,
			35, 3, 43, 11, 51, 19, 59, 27, 34, 2, 42, 10, 50, 18, 58, 26, 33, 1, 41, 9, 49, 17, 57, 25, 32, 0, 40, 8, 48, 16, 56, 24,
		},
		expand: []byte{
			31, 0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 7, 8, 9, 10, 11, 12, 11, 12, 13, 14, 15, 16,
			15, 16, 17, 18, 19, 20, 19, 20, 21, 22, 23, 24, 23, 24, 25, 26, 27, 28, 27, 28, 29, 30, 31, 0,
		},
		permute: []byte{
			15, 6, 19, 20, 28, 11, 27, 16, 0, 14, 22, 25, 4, 17, 30, 9, 1, 7, 23, 13, 31, 26, 2, 8, 18, 12, 29, 5, 21, 10, 3, 24,
		},
		choice1: []byte{
			56, 48, 40, 32, 24, 16, 8, 0, 57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35,
			62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 60, 52, 44, 36, 28, 20, 12, 4, 27, 19, 11, 3,
		},
		choice2: []byte{
			13, 16, 10, 23, 0, 4, 2, 27, 14, 5, 20, 9, 22, 18, 11, 3, 25, 7, 15, 6, 26, 19, 12, 1,
			40, 51, 30, 36, 46, 54, 29, 39, 50, 44, 32, 47, 43, 48, 38, 55, 33, 52, 45, 41, 49, 35, 28, 31,
		},
		shifts: "1122222212222221",
		boxes: [8]string{
			"e4d12fb83a6c5907" + "0f74e2d1a6cb9538" + "41e8d62bfc973a50" + "fc8249175b3ea06d",
			"f18e6b34972dc05a" + "3d47f28ec01a69b5" + "0e7ba4d158c6932f" + "d8a13f42b67c05e9",
			"a09e63f51dc7b428" + "d709346a285ecbf1" + "d6498f30b12c5ae7" + "1ad069874fe3b52c",
			"7de3069a1285bc4f" + "d8b56f03472c1ae9" + "a690cb7df13e5284" + "3f06a1d8945bc72e",
			"2c417ab6853fd0e9" + "eb2c47d150fa3986" + "421bad78f9c5630e" + "b8c71e2d6f09a453",
			"c1af92680d34e75b" + "af427c9561de0b38" + "9ef528c3704a1db6" + "432c95fabe17608d",
			"4b2ef08d3c975a61" + "d0b7491ae35c2f86" + "14bdc37eaf680592" + "6bd814a7950fe23c",
			"d2846fb1a93e50c7" + "1fd8a374c56b0e92" + "7b419ce206adf358" + "21e74a8dfc90356b",
		},
	}
}

// pick makes bits of others.
func pick(bits, which []byte) []byte {
	out := make([]byte, len(which))
	for i, w := range which {
		out[i] = bits[w]
	}
	return out
}

// cryptDES hashes the first eight characters of a password. "" for a salt that
// is none.
func cryptDES(password, hashed string) string {
	if len(hashed) < 2 {
		return ""
	}
	t := desStandard()
	for i := range 2 {
		digit := strings.IndexByte(cryptAlphabet, hashed[i])
		if digit < 0 {
			return ""
		}
		for j := range 6 { // a bit of the salt swaps two bits of what is expanded
			if digit>>j&1 != 0 {
				t.expand[6*i+j], t.expand[6*i+j+24] = t.expand[6*i+j+24], t.expand[6*i+j]
			}
		}
	}
	block := make([]byte, 64)
	keys := t.schedule(password)
	for range 25 {
		block = t.encrypt(block, keys)
	}
	out := []byte(hashed[:2])
	for i := 0; i < 66; i += 6 {
		v := 0
		for j := i; j < i+6; j++ {
			v <<= 1
			if j < len(block) {
				v |= int(block[j])
			}
		}
		out = append(out, cryptAlphabet[v])
	}
	return string(out)
}

// schedule makes the keys of the rounds of seven bits of each character.
func (t *desTables) schedule(password string) [][]byte {
	bits := make([]byte, 64)
	for i := range min(len(password), 8) {
		for j := range 7 {
			bits[8*i+j] = password[i] >> (6 - j) & 1
		}
	}
	bits = pick(bits, t.choice1)
	left, right := bits[:28:28], bits[28:]
	var keys [][]byte
	for _, n := range t.shifts {
		n -= '0'
		left, right = append(left[n:len(left):len(left)], left[:n]...), append(right[n:len(right):len(right)], right[:n]...)
		keys = append(keys, pick(append(left[:28:28], right...), t.choice2))
	}
	return keys
}

// encrypt encrypts a block of bits.
func (t *desTables) encrypt(block []byte, keys [][]byte) []byte {
	block = pick(block, t.initial)
	left, right := block[:32:32], block[32:]
	for _, key := range keys {
		mixed := pick(right, t.expand)
		for i := range mixed {
			mixed[i] ^= key[i]
		}
		next := pick(t.substitute(mixed), t.permute)
		for i := range next {
			next[i] ^= left[i]
		}
		left, right = right, next
	}
	// the final permutation undoes the last exchange of the halves
	return pick(append(right[:32:32], left...), t.final)
}

// substitute sends six bits each through the boxes: the outer two choose the
// row, the others the column.
func (t *desTables) substitute(in []byte) []byte {
	out := make([]byte, 0, 32)
	for i, box := range t.boxes {
		b := in[6*i : 6*i+6]
		row, column := b[0]<<1|b[5], b[1]<<3|b[2]<<2|b[3]<<1|b[4]
		v, _ := hexDigit(box[16*row+column])
		out = append(out, v>>3&1, v>>2&1, v>>1&1, v&1)
	}
	return out
}
