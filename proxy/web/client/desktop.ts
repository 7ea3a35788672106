void import('@devolutions/iron-remote-desktop-rdp');
void import('@devolutions/iron-remote-desktop');
