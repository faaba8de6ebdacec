"""Opens what the test sealed and seals what it is to open, with Scapy: a line of JSON in, a line out, for each association."""

import json
import sys

from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

ENDS = {"src": "192.0.2.1", "dst": "192.0.2.2"}


def association(case):
    cipher = "CHACHA20-POLY1305" if case["cipher"].startswith("ChaCha") else "AES-GCM"
    nat = UDP(sport=4500, dport=4500) if case["udp"] else None
    key = bytes.fromhex(case["material"])
    return SecurityAssociation(ESP, spi=case["spi"], crypt_algo=cipher, crypt_key=key, nat_t_header=nat)


def opened(case, packet):
    """What is in an IP packet's payload that the test sealed."""
    arrived = IP(bytes(IP(proto=17 if case["udp"] else 50, **ENDS) / Raw(bytes.fromhex(packet))))
    inside = association(case).decrypt(arrived, verify=True, esn_en=case["extended"], esn=0)
    return bytes(inside.payload).hex()


def sealed(case, high, low, length):
    """A datagram, and the payload of the IP packet that carries it sealed."""
    plain = IP(bytes(IP(**ENDS) / UDP(sport=49152 + length % 1000, dport=4790) / Raw(bytes(i % 251 for i in range(length)))))
    packet = association(case).encrypt(plain, seq_num=low, esn_en=case["extended"], esn=high)
    return [bytes(plain.payload).hex(), bytes(packet.payload).hex()]


for line in sys.stdin:
    case = json.loads(line)
    answer = {
        "opened": [opened(case, packet) for packet in case["sealed"]],
        "sealed": [sealed(case, *numbers) for numbers in case["numbers"]],
    }
    print(json.dumps(answer))
