"""Chinese surnames, which distinguish a name from a word if there is no colon."""

from __future__ import annotations

from typing import Final

SURNAMES: Final = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖"
    "石金韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔汤常温康施牛樊葛邢安齐庄章鲁倪"
    "庞聂殷翟申左伍俞詹欧耿关兰焦祝纪柳尤宁柯岳骆阮辛辜霍鲍季管裴蓝凌靳穆艾翁娄祁卜柏盛牟尚舒项梅臧成游符解冉路童屈"
    "苗隋谷褚费卓蒲佟匡滕车宫闵甘涂卞阎植冼邬古单鄢桂栗应厉佘喻颜向楼揭丘仇班巫窦晏芦商柴卫"
)
"""Surnames of one character, without those that are mostly other words, such as 和 or 时."""
COMPOUND: Final = "欧阳|上官|司马|诸葛|司徒|东方|夏侯|皇甫|尉迟|公孙|慕容|令狐|长孙|宇文|端木|轩辕|南宫|西门|独孤|百里|呼延|太史|申屠|澹台|闻人"
SURNAME: Final = f"(?:{COMPOUND}|[{SURNAMES}])"
